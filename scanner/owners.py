"""Who owned a file in the layers below: so that a change to it can be laid at a package's door.

`Change` of the merge says that layer k replaced a path of a lower layer; this says whose file that was, by the lists
that dpkg (and RECORD) wrote in the layers below k. Paths are those of the merged tree.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocispec.tree import Tree
from scanner.catalogers.dpkg.cataloger import package_purl
from scanner.catalogers.dpkg.database import packages_by_layer
from scanner.catalogers.dpkg.files import listed_paths, stem_of
from scanner.catalogers.python.cataloger import distribution_purl
from scanner.catalogers.python.distributions import metadata_of, record_lines
from scanner.facts import LayerFacts, Record
from scanner.records import RecordKind
from scanner.system import operating_system
from scanner.view import ImageView


class Owners:
    """The owners of files, by layer."""

    def __init__(self, tree: Tree, layers: Sequence[LayerFacts]) -> None:
        """Read the lists of files in all of `layers`, lowest first, which merge to `tree`.

        Raises:
            ScanError: the tree has a layer that `layers` lacks.
        """
        self._view = ImageView(tree, layers)
        self._owners: dict[bytes, list[tuple[int, str]]] = {}
        self._system = operating_system(self._view)[0]
        self._read_debs()
        self._read_distributions()

    def below(self, path: bytes, layer: int) -> str:
        """The purl of the component that owned `path` in the layers below `layer`; "" if none did."""
        owners = [owner for at, owner in self._owners.get(path, ()) if at < layer]
        return owners[-1] if owners else ""

    def _read_debs(self) -> None:
        states = packages_by_layer(self._view)
        for layer, packages in enumerate(states):
            purls = {stem: package_purl(package, self._system) for package in packages for stem in package.stems}
            for record in self._records(layer, RecordKind.DPKG_LIST, RecordKind.DPKG_CHECKSUMS):
                purl = purls.get(stem_of(record.path))
                if purl is not None:
                    for path in listed_paths(record):
                        self._note(path, layer, purl)

    def _read_distributions(self) -> None:
        for layer in range(len(self._view.layers)):
            names = {
                record.path.rpartition(b"/")[0]: metadata_of(record)
                for record in self._records(layer, RecordKind.PYTHON_METADATA)
            }
            for record in self._records(layer, RecordKind.PYTHON_RECORD):
                folder = record.path.rpartition(b"/")[0]
                name, version, _ = names.get(folder, ("", "", ""))
                if name:
                    for path in record_lines(record.text, folder.rpartition(b"/")[0])[0]:
                        self._note(path, layer, distribution_purl(name, version))

    def _records(self, layer: int, *kinds: RecordKind) -> list[Record]:
        return [record for record in self._view.layers[layer].records if record.kind in kinds]

    def _note(self, path: bytes, layer: int, purl: str) -> None:
        owners = self._owners.setdefault(self._view.canonical(path), [])
        if (layer, purl) not in owners:
            owners.append((layer, purl))
