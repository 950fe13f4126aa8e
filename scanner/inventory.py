"""What is in an image: its layers' facts, read in the merged tree. A function of those alone.

An image's inventory does not change when advisories do, and its layers' facts are shared with every image that has
them: this step takes milliseconds, and reads no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ocispec.tree import Tree
from scanner.catalogers.dpkg.cataloger import DpkgCataloger
from scanner.catalogers.interface import Cataloger
from scanner.catalogers.python.cataloger import PythonCataloger
from scanner.errors import ScanError
from scanner.facts import LayerFacts
from scanner.gaps import gaps
from scanner.model import Component, Inventory, Unknown
from scanner.system import operating_system
from scanner.view import ImageView

CATALOGERS: Final[tuple[Cataloger, ...]] = (DpkgCataloger(), PythonCataloger())
"""The catalogers in order: a distribution's package owns a file before a language's package does."""


MAX_COMPONENTS: Final = 20_000
"""Components of an image; the largest real ones have some 5,000."""

MAX_UNKNOWNS: Final = 10_000
"""Unknowns of an image that are told one by one."""


def inventory(tree: Tree, layers: Sequence[LayerFacts]) -> Inventory:
    """The inventory of the image whose layers, lowest first, have the facts `layers` and merge to `tree`.

    Raises:
        ScanError: the tree has a layer that `layers` lacks, or the image has more packages than we read.
    """
    view = ImageView(tree, layers)
    system, unknowns = operating_system(view)
    found: list[Unknown] = [*unknowns, *view.unread()]
    components: list[Component] = []
    owned: dict[bytes, str] = {}
    for cataloger in CATALOGERS:
        catalogue = cataloger.catalog(view, system, owned)
        components += catalogue.components
        if len(components) > MAX_COMPONENTS:
            raise ScanError(f"the image has more than {MAX_COMPONENTS} components")
        found += catalogue.unknowns
        for path, purl in catalogue.owned.items():
            owned.setdefault(path, purl)
    found += gaps(view, owned)
    if system is None and not unknowns:
        found.append(_no_system())
    return Inventory(
        operating_system=system,
        components=tuple(sorted(components, key=_component_order)),
        unknowns=_bounded(sorted(set(found), key=lambda item: (item.layer, item.code, item.subject, item.detail))),
    )


def _component_order(component: Component) -> tuple[str, ...]:
    return component.type, component.name, component.version, component.location, component.purl


def _bounded(unknowns: list[Unknown]) -> tuple[Unknown, ...]:
    if len(unknowns) <= MAX_UNKNOWNS:
        return tuple(unknowns)
    detail = f"{len(unknowns) - MAX_UNKNOWNS} more things could not be told, beside those that are listed"
    return (*unknowns[:MAX_UNKNOWNS], Unknown(code="unreadable-record", subject="the image", detail=detail))


def _no_system() -> Unknown:
    detail = "no os-release: neither etc/os-release nor usr/lib/os-release is there"
    return Unknown(code="no-operating-system", subject="etc/os-release", detail=detail)
