"""Packages of any name, version and licence, as the files that their real installers leave behind.

`dpkg_files` gives what dpkg leaves: the status paragraph, list, checksums, conffiles and copyright. `python_files`
gives what pip leaves: dist-info with METADATA and RECORD. Both return a mapping of paths (without a leading
slash) to contents, ready to become a layer; nothing is downloaded, and the code inside does nothing.
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Files = dict[str, bytes]

DPKG = "var/lib/dpkg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A binary package of a Debian-like distribution, as installed.

    `files` are its regular files by path, `conffiles` those of them that an administrator may edit. An empty
    `source` means that source package and version are its own. `licence` is a short name of DEP-5
    (`AGPL-3+`); `copyright_text` replaces the copyright file that is made from it.
    """

    name: str
    version: str
    architecture: str = "all"
    source: str = ""
    source_version: str = ""
    licence: str = "Expat"
    status: str = "install ok installed"
    maintainer: str = "Debian QA Group <packages@qa.debian.org>"
    multi_arch: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    copyright_text: str = ""

    @property
    def shipped(self) -> Files:
        """Its regular files, with the copyright file and changelog that every Debian package has."""
        documents = f"usr/share/doc/{self.name}"
        text = self.copyright_text or dep5(self.licence)
        return {
            f"{documents}/copyright": text.encode(),
            f"{documents}/changelog.Debian": f"{self.name} ({self.version}) unstable\n".encode(),
            **self.files,
        }


def dep5(licence: str) -> str:
    """A machine-readable copyright file of one licence."""
    return (
        "Format: copyright-format/1.0\n"
        "Upstream-Name: example\n\n"
        f"Files: *\nCopyright: 2024 Somebody\nLicense: {licence}\n The text of {licence}.\n"
    )


def status_paragraph(deb: Deb) -> str:
    """The paragraph of one package in dpkg's status file."""
    lines = [f"Package: {deb.name}", f"Status: {deb.status}", "Priority: optional", "Section: misc"]
    lines += [f"Maintainer: {deb.maintainer}", f"Architecture: {deb.architecture}"]
    if deb.multi_arch:
        lines.append(f"Multi-Arch: {deb.multi_arch}")
    if deb.source:
        lines.append(f"Source: {deb.source}" + (f" ({deb.source_version})" if deb.source_version else ""))
    lines.append(f"Version: {deb.version}")
    if deb.conffiles:
        lines.append("Conffiles:")
        lines += [f" /{path} {_md5(deb.files[path])}" for path in deb.conffiles]
    lines += ["Description: a package made for a test", " It has files, and they do nothing."]
    return "\n".join(lines) + "\n"


def dpkg_files(debs: Iterable[Deb], *, below: bytes = b"") -> Files:
    """What a layer holds after dpkg installed `debs` on a system whose status file was `below`.

    Packages of `below` that are installed again are replaced in it.
    """
    installed = tuple(debs)
    names = {deb.name for deb in installed}
    kept = [
        paragraph.strip() + "\n"
        for paragraph in below.decode().split("\n\n")
        if paragraph.strip() and _package_name(paragraph) not in names
    ]
    files: Files = {f"{DPKG}/status": "\n".join([*kept, *map(status_paragraph, installed)]).encode()}
    for deb in installed:
        if deb.status.endswith(("config-files", "not-installed")):
            continue
        files |= deb.shipped
        files |= _info_files(deb)
    return files


def distroless_files(debs: Iterable[Deb]) -> Files:
    """The same packages in the form of distroless images: one file a package in status.d, and checksums."""
    files: Files = {}
    for deb in debs:
        files |= deb.shipped
        record = f"{DPKG}/status.d/{deb.name}"
        files[record] = re.sub(r"Status: .*\n", "", status_paragraph(deb)).encode()
        files[f"{record}.md5sums"] = _checksums(deb)
    return files


def _info_files(deb: Deb) -> Files:
    stem = f"{deb.name}:{deb.architecture}" if deb.multi_arch == "same" else deb.name
    info = f"{DPKG}/info/{stem}"
    folders = {parent for path in deb.shipped for parent in _parents(path)}
    listed = ["/.", *sorted(f"/{path}" for path in [*folders, *deb.shipped])]
    files = {f"{info}.list": "".join(f"{path}\n" for path in listed).encode(), f"{info}.md5sums": _checksums(deb)}
    if deb.conffiles:
        files[f"{info}.conffiles"] = "".join(f"/{path}\n" for path in deb.conffiles).encode()
    return files


def _checksums(deb: Deb) -> bytes:
    shipped = sorted(item for item in deb.shipped.items() if item[0] not in deb.conffiles)
    return "".join(f"{_md5(content)}  {path}\n" for path, content in shipped).encode()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parents(path: str) -> list[str]:
    parents = []
    while path := posixpath.dirname(path):
        parents.append(path)
    return parents


def _package_name(paragraph: str) -> str:
    found = re.search(r"^Package: (\S+)", paragraph, re.MULTILINE)
    return found.group(1) if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A Python distribution, as pip installs it.

    `licence` is an SPDX expression for the `License-Expression` field, "" for none; `headers` are further
    lines of METADATA (`Classifier: …`). Without `files` it has one module of its own name.
    """

    name: str
    version: str
    licence: str = "MIT"
    headers: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


SITE_PACKAGES = "usr/local/lib/python3.13/site-packages"


def python_files(*wheels: Wheel, site: str = SITE_PACKAGES) -> Files:
    """What a layer holds after pip installed `wheels` into the folder `site`."""
    files: Files = {}
    for wheel in wheels:
        stem = re.sub(r"[-_.]+", "_", wheel.name)
        folder = f"{stem}-{wheel.version}.dist-info"
        module = {f"{stem}/__init__.py": f'"""The module of {wheel.name}."""\n'.encode()}
        inside: Files = dict(wheel.files or module)
        inside[f"{folder}/METADATA"] = _metadata(wheel).encode()
        inside[f"{folder}/INSTALLER"] = b"pip\n"
        record = "".join(f"{path},sha256={_sha256(content)},{len(content)}\n" for path, content in inside.items())
        inside[f"{folder}/RECORD"] = f"{record}{folder}/RECORD,,\n".encode()
        files |= {posixpath.normpath(f"{site}/{path}"): content for path, content in inside.items()}
    return files


def _metadata(wheel: Wheel) -> str:
    lines = ["Metadata-Version: 2.4", f"Name: {wheel.name}", f"Version: {wheel.version}"]
    if wheel.licence:
        lines.append(f"License-Expression: {wheel.licence}")
    return "\n".join([*lines, *wheel.headers, "", "A package made for a test."]) + "\n"


def _sha256(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def os_release(system: str = "debian", version: str = "13", codename: str = "trixie") -> Files:
    """The os-release file of a system, at the place where distributions ship it."""
    lines = [f'PRETTY_NAME="{system} {version}"', f"ID={system}"]
    lines += [f'VERSION_ID="{version}"'] if version else []
    lines += [f"VERSION_CODENAME={codename}"] if codename else []
    return {"usr/lib/os-release": ("\n".join(lines) + "\n").encode()}
