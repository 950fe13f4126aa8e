"""Why a part of the suite is skipped or not run: docs/conformance.md says the same, and a test compares them."""

from __future__ import annotations

from typing import Final

_SPARSE: Final = (
    "a manifest is refused while a blob or child that it names is not in the repository (`MANIFEST_BLOB_UNKNOWN`, as "
    "the specification allows): what is not there can neither be scanned nor cleared"
)
_LATER: Final = "tags in the query of a push by digest are not in version 1.1; they are tested in `dev`"

EXPLAINED: Final[dict[str, dict[str, str]]] = {
    "1.1": {
        "Manifest put with tag params": _LATER,
        "Sparse Manifests": _SPARSE,
        "Tag Param": _LATER,
        "Tag Param sha512": _LATER,
    },
    "dev": {"Sparse Manifests": _SPARSE},
}
"""By version, the suite's name of an API or kind of data that it does not test here, and why."""
