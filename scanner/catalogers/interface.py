"""What a cataloger is: from the merged image to the components of one ecosystem, and the files that they own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scanner.model import Component, OperatingSystem, Unknown
from scanner.view import ImageView


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What a cataloger found. `owned` maps the path of each owned file in the tree to its component's purl."""

    components: tuple[Component, ...] = ()
    owned: Mapping[bytes, str] = field(default_factory=dict)
    unknowns: tuple[Unknown, ...] = ()


class Cataloger(Protocol):
    """Finds the components of one ecosystem."""

    @property
    def name(self) -> str:
        """The ecosystem, as in messages."""

    def catalog(self, view: ImageView, system: OperatingSystem | None, owned: Mapping[bytes, str]) -> Catalogue:
        """The components in `view`; `owned` are the files that the catalogers before this one found owners for."""
