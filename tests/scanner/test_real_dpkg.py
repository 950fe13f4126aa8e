"""Images made by the real tools: what dpkg installs, upgrades and removes, a whole Debian, and what pip installs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.scanner.scanning import Scanned, scanned
from tests.support.debian import debian_layer
from tests.support.packages import os_release
from tests.support.tools import need, need_root

MINUTES = 60


def run(*command: str | Path, folder: Path) -> None:
    """Run a tool without network settings or locale of the caller's."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, cwd=folder, timeout=5 * MINUTES
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def build_deb(folder: Path, version: str, files: Mapping[str, str], conffiles: Iterable[str] = ()) -> Path:
    """A package made by dpkg-deb, without md5sums of its own: dpkg makes them when it unpacks."""
    tree = folder / f"tree-{version}"
    for path, content in files.items():
        place = tree / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    control = tree / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        f"Package: tool\nVersion: {version}\nArchitecture: all\nMaintainer: Somebody <x@example.org>\n"
        "Source: tools (9.9-9)\nDescription: a tool\n"
    )
    (control / "conffiles").write_text("".join(f"/{path}\n" for path in conffiles))
    package = folder / f"tool_{version}.deb"
    run(need("dpkg-deb"), "--root-owner-group", "--build", tree, package, folder=folder)
    return package


class Root:
    """A system with nothing in it but what dpkg put there; `layer` is what was written since the last one."""

    def __init__(self, folder: Path) -> None:
        need_root()
        self.folder = folder
        self.root = folder / "root"
        for name in ("info", "updates"):
            (self.root / "var/lib/dpkg" / name).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        (self.root / "usr/lib").mkdir(parents=True)
        (self.root / "usr/lib/os-release").write_bytes(os_release()["usr/lib/os-release"])
        self._seen: dict[str, tuple[int, int]] = {}

    def dpkg(self, *arguments: str | Path) -> None:
        """Run dpkg on the system."""
        run(need("dpkg"), f"--root={self.root}", "--force-script-chrootless", *arguments, folder=self.folder)

    def layer(self) -> bytes:
        """The files that were written or removed since the last layer, as an overlay's upper folder has them."""
        now = {
            str(path.relative_to(self.root)): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and not path.name.endswith(("lock", "lock-frontend"))
        }
        archive = self.folder / "layer.tar"
        with tarfile.open(archive, "w") as tar:
            for path in sorted(now.keys() - {path for path, seen in self._seen.items() if now.get(path) == seen}):
                tar.add(self.root / path, path)
            for path in sorted(self._seen.keys() - now.keys()):
                folder, _, name = path.rpartition("/")
                tar.addfile(tarfile.TarInfo(f"{folder}/.wh.{name}"))
        self._seen = now
        return archive.read_bytes()


FILES = {"usr/bin/tool": "one\n", "usr/share/tool/data": "same\n", "etc/tool.conf": "a = 1\n"}


@pytest.mark.root
def test_what_dpkg_installs_upgrades_and_removes(tmp_path: Path) -> None:
    system = Root(tmp_path)
    system.dpkg("--install", build_deb(tmp_path, "1.0-1", FILES, ["etc/tool.conf"]))
    (system.root / "etc/tool.conf").write_text("a = 2\n")
    first = system.layer()
    image = scanned(first)
    component = image.inventory.components[0]
    assert (component.purl.partition("?")[0], component.source, component.source_version, component.files) == (
        "pkg:deb/debian/tool@1.0-1",
        "tools",
        "9.9-9",
        3,
    )
    assert image.unknowns() == []

    system.dpkg("--install", build_deb(tmp_path, "1.0-2", {**FILES, "usr/bin/tool": "two\n"}, ["etc/tool.conf"]))
    second = system.layer()
    image = scanned(first, second)
    assert [(item.version, item.layer) for item in image.inventory.components] == [("1.0-2", 1)]
    assert image.unknowns() == []

    system.dpkg("--remove", "tool")
    third = system.layer()
    image = scanned(first, second, third)
    assert (system.root / "etc/tool.conf").exists()
    assert image.inventory.components == ()
    assert image.unknowns() == []


@pytest.mark.root
def test_l8_the_database_that_dpkg_wrote_with_one_line_edited(tmp_path: Path) -> None:
    system = Root(tmp_path)
    system.dpkg("--install", build_deb(tmp_path, "1.0-1", FILES))
    first = system.layer()
    status = system.root / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("Version: 1.0-1", "Version: 1.0-2"))
    found = scanned(first, system.layer()).unknowns("database-contradicts-files")
    assert ["is new in layer 1" in item.detail for item in found] == [True]


@pytest.fixture(scope="module")
def debian() -> Scanned:
    """A minimal Debian 13."""
    return scanned(debian_layer().read_bytes())


@pytest.mark.root
def test_a_normal_debian_image_has_no_unknown(debian: Scanned) -> None:
    assert debian.inventory.unknowns == ()


@pytest.mark.root
def test_a_debian_image_without_documentation_has_no_unknown(debian: Scanned) -> None:
    # What slim images leave out by dpkg's path-exclude; copyright files stay, as in those.
    excluded = ("usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/", "usr/share/doc/")
    whiteouts = {
        f"{folder}/.wh.{name}": b""
        for path in (path.decode() for path in debian.files())
        for folder, _, name in [path.rpartition("/")]
        if path.startswith(excluded) and name != "copyright"
    }
    slim = scanned(debian_layer().read_bytes(), whiteouts)
    assert len(slim.files()) < len(debian.files())
    assert slim.inventory.unknowns == ()
    assert [(item.name, item.licences, item.layer) for item in slim.inventory.components] == [
        (item.name, item.licences, item.layer) for item in debian.inventory.components
    ]


@pytest.mark.root
def test_a_normal_debian_image_is_counted_as_dpkg_counts_it(debian: Scanned) -> None:
    system = debian.inventory.operating_system
    assert system is not None
    assert (system.id, system.version_id, system.codename) == ("debian", "13", "trixie")
    status = next(record for record in debian.facts[0].records if record.path == b"var/lib/dpkg/status")
    debs = debian.inventory.components
    assert {component.type for component in debs} == {"deb"}
    assert len(debs) == status.text.count("status: install ok installed")
    # Debian writes a copyright file for each package; a few are in a form that nobody can read by machine.
    assert sum(not component.licences for component in debs) <= len(debs) / 20


@pytest.mark.root
def test_l8_one_edited_line_on_a_real_debian(debian: Scanned) -> None:
    status = debian.file("var/lib/dpkg/status", debian_layer())
    version = next(item.version for item in debian.inventory.components if item.name == "libc6")
    forged = status.replace(f"Version: {version}\n".encode(), f"Version: {version}+mended\n".encode())
    found = scanned(debian_layer().read_bytes(), {"var/lib/dpkg/status": forged}).unknowns()
    # Whatever is built from one source with one version was edited with it.
    assert {item.code for item in found} == {"database-contradicts-files"}
    assert any(item.subject.startswith("pkg:deb/debian/libc6@") for item in found)
    assert all("is new in layer 1" in item.detail for item in found)


def test_what_pip_installs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "demo_tool").mkdir(parents=True)
    (source / "demo_tool" / "__init__.py").write_text("VALUE = 1\n")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "demo.tool"\nversion = "1.2.3"\n'
    )
    (source / "backend.py").write_text(BACKEND)
    site = tmp_path / "root" / "usr/local/lib/python3.13/site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run(*pip, "--no-compile", "--target", site, source, folder=tmp_path)
    files = {
        str(path.relative_to(tmp_path / "root")): path.read_bytes()
        for path in (tmp_path / "root").rglob("*")
        if path.is_file()
    }
    image = scanned(files)
    assert [(item.purl, item.licences) for item in image.inventory.components] == [("pkg:pypi/demo.tool@1.2.3", "MIT")]
    assert image.unknowns() == []
    changed = {path: content for path, content in files.items() if path.endswith("demo_tool/__init__.py")}
    image = scanned(files, {path: content + b"evil\n" for path, content in changed.items()})
    assert ["are not what RECORD says" in item.detail for item in image.unknowns()] == [True]


# A build backend (PEP 517) of a dozen lines, so that nothing need be downloaded.
BACKEND = """
import base64, hashlib, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    info = "demo_tool-1.2.3.dist-info"
    files = {
        "demo_tool/__init__.py": open("demo_tool/__init__.py").read(),
        f"{info}/METADATA": "Metadata-Version: 2.4\\nName: demo.tool\\nVersion: 1.2.3\\nLicense-Expression: MIT\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\\n".join([*lines, f"{info}/RECORD,,"]) + "\\n"
    with zipfile.ZipFile(f"{directory}/demo_tool-1.2.3-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "demo_tool-1.2.3-py3-none-any.whl"
"""
