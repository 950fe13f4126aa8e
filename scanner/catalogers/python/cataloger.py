"""Components of installed Python distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from packageurl import PackageURL

from scanner.catalogers.interface import Catalogue
from scanner.catalogers.python.distributions import distributions, recorded_files
from scanner.catalogers.python.evidence import abandoned, contradictions
from scanner.model import Component, OperatingSystem
from scanner.view import ImageView

TYPE: Final = "pypi"


class PythonCataloger:
    """What pip and its relatives installed; a distribution whose metadata a deb owns has that deb as `owner`."""

    name = "python"

    def catalog(self, view: ImageView, system: OperatingSystem | None, owned: Mapping[bytes, str]) -> Catalogue:
        """The distributions, and the files that they own and no package of the distribution does."""
        found, unknowns = distributions(view)
        owners: dict[bytes, str] = {}
        vouched = set(owned)
        components: list[Component] = []
        for distribution in found:
            purl = distribution_purl(distribution.name, distribution.version)
            owner = owned.get(distribution.record.path, "")
            files = recorded_files(view, distribution)
            vouched.update(path for path, digest in files.digests.items() if digest)
            mine = [path for path in {*files.digests, distribution.record.path} if path in view.files]
            owners.update(dict.fromkeys((path for path in mine if path not in owned), purl))
            if not owner:
                # A deb's files are proven by the deb's checksums.
                unknowns += contradictions(view, distribution, files, purl)
            components.append(
                Component(
                    purl=purl,
                    type=TYPE,
                    name=distribution.normal_name,
                    version=distribution.version,
                    licences=distribution.licences,
                    layer=distribution.origin,
                    location=distribution.record.location,
                    owner=owner,
                    files=len(mine),
                )
            )
        unknowns += abandoned(view, vouched)
        return Catalogue(components=tuple(components), owned=owners, unknowns=tuple(unknowns))


def distribution_purl(name: str, version: str) -> str:
    """The package URL of a Python distribution (purl-spec, types/pypi)."""
    return PackageURL(type=TYPE, name=name, version=version).to_string()
