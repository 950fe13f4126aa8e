"""What is kept of each record's text: enough for the catalogers, little enough to keep for every layer.

Text is decoded as UTF-8, with bytes that are not as surrogates, so that paths survive exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.parser import HeaderParser
from typing import Final

from scanner.deb822 import Deb822Error, paragraphs
from scanner.licences.debian import copyright_expression
from scanner.licences.python import metadata_expression
from scanner.records import RecordKind

STATUS_FIELDS: Final = (
    "package",
    "status",
    "version",
    "architecture",
    "multi-arch",
    "source",
    "conffiles",
)
"""The fields of a dpkg paragraph that are kept."""

MAX_HEADER: Final = 64 * 1024
"""Characters of a Python distribution's header that are read, its long description aside."""


def reduce_record(kind: RecordKind, content: bytes) -> tuple[str, str]:
    """The text to keep of a file of `kind`, and what is wrong with it ("" for nothing)."""
    text = content.decode("utf-8", "surrogateescape")
    reducer = _REDUCERS.get(kind)
    if reducer is None:
        return text, ""
    try:
        return reducer(text), ""
    except (Deb822Error, ValueError) as error:
        return "", f"it cannot be read: {error}"


def _status(text: str) -> str:
    """The paragraphs with the fields that are kept, in deb822 form again."""
    return "\n\n".join(
        "\n".join(f"{name}: {value.replace(chr(10), chr(10) + ' ')}" for name, value in paragraph.items())
        for paragraph in paragraphs(text, STATUS_FIELDS)
    )


def _copyright(text: str) -> str:
    return copyright_expression(text)


def _metadata(text: str) -> str:
    """Name, version and licence, a line each."""
    header, _, _ = text.replace("\r\n", "\n").partition("\n\n")
    message = HeaderParser().parsestr(header[:MAX_HEADER])

    def values(field: str) -> list[str]:
        # The parser gives another type where a value is not ASCII.
        return [str(value) for value in message.get_all(field, [])]

    names, versions = values("Name"), values("Version")
    if len(names) != 1 or len(versions) != 1:
        raise ValueError(f"got {len(names)} names and {len(versions)} versions, expected one each")
    expressions, licences = values("License-Expression"), values("License")
    licence = metadata_expression("".join(expressions), "\n".join(licences), values("Classifier"))
    return "\n".join(" ".join(value.split()) for value in (names[0], versions[0], licence))


_REDUCERS: Final[Mapping[RecordKind, Callable[[str], str]]] = {
    RecordKind.DPKG_STATUS: _status,
    RecordKind.DPKG_STATUS_D: _status,
    RecordKind.DEB_COPYRIGHT: _copyright,
    RecordKind.PYTHON_METADATA: _metadata,
}
