"""Components of dpkg's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from packageurl import PackageURL

from scanner.catalogers.dpkg.database import Package, installed
from scanner.catalogers.dpkg.evidence import abandoned, contradictions
from scanner.catalogers.dpkg.files import InfoFolder, PackageFiles
from scanner.catalogers.interface import Catalogue
from scanner.model import Component, OperatingSystem
from scanner.records import RecordKind
from scanner.view import ImageView

TYPE: Final = "deb"


class DpkgCataloger:
    """The packages of Debian, Ubuntu and distroless images."""

    name = "dpkg"

    def catalog(self, view: ImageView, system: OperatingSystem | None, owned: Mapping[bytes, str]) -> Catalogue:
        """The packages that are installed, and the files that they own; `owned` is not needed."""
        packages, unknowns = installed(view)
        info = InfoFolder(view)
        owners: dict[bytes, str] = {}
        vouched: set[bytes] = set()
        components: list[Component] = []
        for package in packages:
            files = info.files(package)
            purl = package_purl(package, system)
            vouched.update(files.checksums)
            mine = _present(view, files)
            owners.update(dict.fromkeys(mine, purl))
            unknowns += contradictions(view, package, files, purl)
            components.append(_component(view, package, purl, len(mine)))
        unknowns += abandoned(view, packages, vouched)
        return Catalogue(components=tuple(components), owned=owners, unknowns=tuple(unknowns))


def package_purl(package: Package, system: OperatingSystem | None) -> str:
    """The package URL of a deb (purl-spec, types/deb): the vendor is the image's distribution."""
    distro = f"{system.id}-{system.version_id}" if system is not None and system.version_id else ""
    return PackageURL(
        type=TYPE,
        namespace=system.id if system is not None else "unknown",
        name=package.name,
        version=package.version,
        qualifiers={"arch": package.architecture, **({"distro": distro} if distro else {})},
    ).to_string()


def _present(view: ImageView, files: PackageFiles) -> set[bytes]:
    paths = files.listed if files.listed is not None else files.checksums.keys()
    return {path for path in paths if path in view.files}


def _component(view: ImageView, package: Package, purl: str, files: int) -> Component:
    licence = view.record(b"usr/share/doc/" + package.name.encode() + b"/copyright")
    is_copyright = licence is not None and licence.record.kind is RecordKind.DEB_COPYRIGHT
    return Component(
        purl=purl,
        type=TYPE,
        name=package.name,
        version=package.version,
        source=package.source,
        source_version=package.source_version,
        licences=licence.record.text if licence is not None and is_copyright else "",
        layer=package.origin,
        location=package.record.location,
        files=files,
    )
