"""Platforms, and the one matcher that chooses a child of an index (image specification, image-index.md).

The registry, the clearance and the host all choose by this function, so what was judged is what runs.
Two children that match equally well are an ambiguity, and refused (S7): another client could choose the
other one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from ocispec.strictjson import JsonValue

if TYPE_CHECKING:
    from ocispec.descriptor import Descriptor

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}
_DEFAULT_VARIANT = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""What no variant means (image specification, image-index.md, "Platform Variants"; containerd normalises alike)."""

_WORD = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._+-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Operating system, architecture (GOARCH) and CPU variant."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a part that is no word: it is compared, shown and written into statements."""
        for part in (self.os, self.architecture, *filter(None, (self.variant, self.os_version, *self.os_features))):
            if _WORD.fullmatch(part) is None:
                raise SpecError(f"platform: {part[:80]!r} is not a word of letters, digits and '._+-'")

    @classmethod
    def from_json(cls, members: JsonObject, *, what: str) -> Platform:
        """Return the platform in a descriptor.

        Raises:
            SpecError: os or architecture is missing, or a member is of the wrong type.
        """
        return cls(
            os=fields.text(members, "os", what=what),
            architecture=fields.text(members, "architecture", what=what),
            variant=fields.text(members, "variant", what=what, default=""),
            os_version=fields.text(members, "os.version", what=what, default=""),
            os_features=fields.texts(members, "os.features", what=what, limit=64),
        )

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform that `os/architecture[/variant]` spells.

        Raises:
            SpecError: another number of parts, or an empty one.
        """
        parts = text.split("/")
        if len(parts) not in {2, 3} or not all(parts):
            raise SpecError(f"platform {text[:80]!r}: expected os/architecture[/variant]")
        return cls(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")

    @classmethod
    def of_this_host(cls) -> Platform:
        """The platform of the running kernel.

        Raises:
            SpecError: the machine name is not one we know.
        """
        machine = os.uname().machine
        if machine not in _MACHINES:
            raise SpecError(f"machine {machine!r}: no platform is known for it")
        architecture, variant = _MACHINES[machine]
        return cls(os="linux", architecture=architecture, variant=variant)

    @property
    def is_unknown(self) -> bool:
        """True for `unknown/unknown`, which marks attestations and other data among an index's children."""
        return self.os == "unknown" and self.architecture == "unknown"

    def to_json(self) -> dict[str, JsonValue]:
        """The platform as a JSON object."""
        members: dict[str, JsonValue] = {"architecture": self.architecture, "os": self.os}
        if self.variant:
            members["variant"] = self.variant
        if self.os_version:
            members["os.version"] = self.os_version
        if self.os_features:
            members["os.features"] = list(self.os_features)
        return members

    def runs(self, image: Platform) -> bool:
        """True if a host of this platform runs an image built for `image`.

        No fallback to an older variant: an approval is for the child that was approved. Each feature in
        os.features is mandatory, so an image that names one which this host does not name is not for it.
        """
        return (
            self.os == image.os
            and self.architecture == image.architecture
            and _variant(self) == _variant(image)
            and set(image.os_features) <= set(self.os_features)
        )

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _variant(platform: Platform) -> str:
    return platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "")


def choose(children: Sequence[Descriptor], host: Platform) -> Descriptor:
    """Return the one child of an index that `host` runs.

    Raises:
        SpecError: none matches, or more than one does.
    """
    matching = [child for child in children if child.platform is not None and host.runs(child.platform)]
    if not matching:
        raise SpecError(f"index: no child for {host}")
    if len({child.digest for child in matching}) > 1:
        shown = ", ".join(str(child.digest) for child in matching[:4])
        raise SpecError(f"index: {len(matching)} children match {host} equally: {shown}")
    return matching[0]
