"""CISA's catalogue of known exploited vulnerabilities (its JSON feed, `known_exploited_vulnerabilities.json`)."""

from __future__ import annotations

import re
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from scanner.advisories.records import Exploited
from scanner.errors import ScanError

MAX_CATALOGUE: Final = 64 * 1024 * 1024
"""Bytes of the catalogue; it has about 1 MB."""

_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def parse_catalogue(raw: bytes, *, what: str) -> tuple[tuple[Exploited, ...], tuple[str, ...]]:
    """The entries of the catalogue, and what is wrong with those that cannot be read.

    Raises:
        ScanError: the document as a whole is not the catalogue.
    """
    try:
        members = parse_object(raw, what=what, max_bytes=MAX_CATALOGUE)
        items = fields.items(members, "vulnerabilities", what=what, limit=1_000_000)
    except SpecError as error:
        raise ScanError(str(error)) from None
    entries: list[Exploited] = []
    problems: list[str] = []
    for position, item in enumerate(items):
        try:
            entries.append(_entry(item, f"{what}: vulnerabilities[{position}]"))
        except SpecError as error:
            problems.append(str(error))
    return tuple(entries), tuple(problems)


def _entry(item: JsonValue, what: str) -> Exploited:
    if not isinstance(item, dict):
        raise SpecError(f"{what}: expected an object")
    cve = fields.text(item, "cveID", what=what)
    if _CVE.fullmatch(cve) is None:
        raise SpecError(f"{what}: cveID is {cve[:40]!r}, expected a CVE id")
    added = fields.text(item, "dateAdded", what=what)
    if _DAY.fullmatch(added) is None:
        raise SpecError(f"{what}: dateAdded is {added[:40]!r}, expected a day")
    return Exploited(
        cve=cve,
        added=added,
        due=fields.text(item, "dueDate", what=what, default=""),
        ransomware=fields.text(item, "knownRansomwareCampaignUse", what=what, default="") == "Known",
    )
