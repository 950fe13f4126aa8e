"""End-of-life dates: endoflife.date's `/api/v1/products/full`, schema 1.2."""

from __future__ import annotations

import re
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from scanner.advisories.records import Cycle, Product
from scanner.errors import ScanError

MAX_PRODUCTS: Final = 128 * 1024 * 1024
"""Bytes of the document; it has about 2 MB."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def parse_products(raw: bytes, *, what: str) -> tuple[tuple[Product, ...], tuple[str, ...]]:
    """The products, and what is wrong with those that cannot be read.

    Raises:
        ScanError: the document as a whole is not a list of products.
    """
    try:
        members = parse_object(raw, what=what, max_bytes=MAX_PRODUCTS)
        items = fields.items(members, "result", what=what, limit=100_000)
    except SpecError as error:
        raise ScanError(str(error)) from None
    products: list[Product] = []
    problems: list[str] = []
    for position, item in enumerate(items):
        try:
            products.append(_product(item, f"{what}: result[{position}]"))
        except SpecError as error:
            problems.append(str(error))
    return tuple(products), tuple(problems)


def _product(item: JsonValue, what: str) -> Product:
    if not isinstance(item, dict):
        raise SpecError(f"{what}: expected an object")
    name = fields.text(item, "name", what=what)
    purls: set[str] = set()
    for identifier in fields.items(item, "identifiers", what=what, limit=10_000):
        if isinstance(identifier, dict) and identifier.get("type") == "purl":
            # Qualifiers and subpath narrow a product to a part of it, which a cycle does not tell apart.
            purls.add(re.split(r"[?#]", fields.text(identifier, "id", what=what))[0])
    return Product(
        name=name,
        label=fields.text(item, "label", what=what, default=name),
        category=fields.text(item, "category", what=what, default=""),
        identifiers=tuple(sorted(purls)),
        cycles=tuple(
            _cycle(value, name, f"{what}: releases[{position}]")
            for position, value in enumerate(fields.items(item, "releases", what=what, limit=10_000))
        ),
    )


def _cycle(value: JsonValue, product: str, what: str) -> Cycle:
    if not isinstance(value, dict):
        raise SpecError(f"{what}: expected an object")
    eol = fields.text(value, "eolFrom", what=what, default="")
    if eol and _DAY.fullmatch(eol) is None:
        raise SpecError(f"{what}: eolFrom is {eol[:40]!r}, expected a day")
    ended = value.get("isEol")
    if ended is not None and not isinstance(ended, bool):
        raise SpecError(f"{what}: isEol is {ended!r:.40}, expected true, false or null")
    return Cycle(
        product=product,
        name=fields.text(value, "name", what=what),
        codename=fields.text(value, "codename", what=what, default=""),
        eol=eol,
        # Where there is a date it decides, whenever the source was written.
        ended=ended is True and not eol,
    )
