"""Licences of a Debian package, from its copyright file.

Machine-readable copyright files (copyright-format 1.0, "DEP-5") give short names for sets of files; the
expression joins those of all sets, except `Files: debian/*`: packaging scripts, which no binary package holds.
Copyright files in free form are searched for licences that they refer to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from scanner.deb822 import Deb822Error, paragraphs
from scanner.licences.spdx import Expression, both, either, ids, reference, render
from scanner.licences.texts import recognise

MAX_TERMS: Final = 400
"""Different licence lines of one file; the kernel has about 100."""

MAX_LINE: Final = 2_000
"""Characters of a licence line that are read; the longest real ones have about 200."""

# Short names of copyright-format 1.0, section 7.1.1, and frequent spellings, in lower case.
_NAMES: Final[Mapping[str, str]] = {
    "expat": "MIT",
    "mit/x11": "MIT",
    "apache": "Apache-2.0",
    "apache-1": "Apache-1.0",
    "apache-2": "Apache-2.0",
    "apache-2-llvm-exceptions": "Apache-2.0 WITH LLVM-exception",
    "apache-2.0-with-llvm-exception": "Apache-2.0 WITH LLVM-exception",
    "artistic": "Artistic-1.0-Perl",
    "artistic-1": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "bsd-2": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-4": "BSD-4-Clause",
    "boost": "BSL-1.0",
    "bsl": "BSL-1.0",
    "bzip2": "bzip2-1.0.6",
    "cc0": "CC0-1.0",
    "cddl": "CDDL-1.0",
    "cpl": "CPL-1.0",
    "efl": "EFL-2.0",
    "lppl": "LPPL-1.0",
    "openldap-2.8": "OLDAP-2.8",
    "psf-2": "PSF-2.0",
    "python": "Python-2.0",
    "qpl": "QPL-1.0",
    "sgi": "SGI-B-2.0",
    "unicode": "Unicode-DFS-2016",
    "zope": "ZPL-2.1",
}
_FAMILY: Final = re.compile(r"(a?gpl|lgpl|gfdl(?:-niv)?)(?:-?v?([0-9](?:\.[0-9])?))?(?:\.0)?(\+)?", re.ASCII)
_VERSIONED: Final = re.compile(r"(.+?)-([0-9]+)(\+)?", re.ASCII)
_SPLIT_AND: Final = re.compile(r"\s+and\s+", re.IGNORECASE)
_SPLIT_OR: Final = re.compile(r"\s+or\s+", re.IGNORECASE)
_SPLIT_COMMA: Final = re.compile(r",\s+(and|or)\s+", re.IGNORECASE)
_WITH: Final = re.compile(r"(?:\s+|-)with[\s-].*", re.IGNORECASE)
_EXCEPTIONS: Final[Mapping[str, str]] = {
    "autoconf": "Autoconf-exception-generic",
    "bison": "Bison-exception-2.2",
    "classpath": "Classpath-exception-2.0",
    "font": "Font-exception-2.0",
    "gcc": "GCC-exception-3.1",
    "libtool": "Libtool-exception",
    "linux-syscall-note": "Linux-syscall-note",
    "llvm": "LLVM-exception",
}


def copyright_expression(text: str) -> str:
    """The SPDX expression of a copyright file; "" if no licence can be recognised in it."""
    if re.match(r"\s*Format(?:-Specification)?:", text):
        try:
            terms = _terms(text)
        except Deb822Error:
            terms = set()
        if terms:
            return render(both(terms))
    return render(recognise(text))


def _terms(text: str) -> set[Expression]:
    terms: set[Expression] = set()
    header = True
    for paragraph in paragraphs(text, ("files", "license")):
        files = paragraph.get("files", "").split()
        line = paragraph.get("license", "").partition("\n")[0].strip()
        shipped = files and not all(pattern.removeprefix("./").startswith("debian/") for pattern in files)
        # The header's licence is of the package as a whole; paragraphs of a licence alone hold its text.
        if line and (shipped or (header and not files)) and len(terms) < MAX_TERMS:
            terms.add(short_name(line))
        header = False
    return terms


def short_name(line: str) -> Expression:
    """The expression of a `License:` line: short names, `and`, `or`, and a comma where those mix (section 7.2)."""
    # re.split keeps the words that it split at: operand, word, operand, word, operand.
    pieces = _SPLIT_COMMA.split(" ".join(line[:MAX_LINE].split()))
    result = _either(pieces[0])
    for word, operand in zip(pieces[1::2], pieces[2::2], strict=True):
        result = (both if word.lower() == "and" else either)((result, _either(operand)))
    return result


def _either(text: str) -> Expression:
    return either(both(map(_name, _SPLIT_AND.split(part))) for part in _SPLIT_OR.split(text))


def _name(name: str) -> Expression:
    if name.strip().lower() == "perl":
        return either(("Artistic-1.0-Perl", "GPL-1.0-or-later"))
    bare = _WITH.sub("", name.strip())
    exception = _exception(name[len(bare) :].lower()) if bare != name.strip() else ""
    licence = _licence(bare.lower()) or reference(bare)
    return f"{licence} WITH {exception}" if exception else licence


def _exception(words: str) -> str:
    """The SPDX id of an exception. One that has none is left out: then more is asked of the user, not less."""
    return next((spdx for word, spdx in _EXCEPTIONS.items() if word in words), "")


def _licence(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    family = _FAMILY.fullmatch(name)
    if family is not None:
        return _gnu(*family.groups())
    if name in ids():
        return ids()[name]
    versioned = _VERSIONED.fullmatch(name)
    if versioned is not None:
        # "MPL-2", "CC-BY-SA-4": SPDX's ids have a minor number.
        stem, major, later = versioned.groups()
        known = ids().get(f"{stem}-{major}.0", "")
        return f"{known}+" if known and later else known
    return ""


def _gnu(family: str, version: str | None, later: str | None) -> str:
    suffix = ""
    if family == "gfdl-niv":
        family, suffix = "gfdl", "-no-invariants"
    if version is None:
        # Without a number, any version may be chosen (GPL-3 section 14, last sentence).
        version, later = {"gpl": "1.0", "lgpl": "2.0", "agpl": "1.0", "gfdl": "1.1"}[family], "+"
    number = version if "." in version else f"{version}.0"
    known = f"{family.upper()}-{number}{suffix}-{'or-later' if later else 'only'}"
    return ids().get(known.lower(), "")
