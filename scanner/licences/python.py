"""Licences of a Python distribution, from its core metadata.

In this order: `License-Expression` (PEP 639), `License` if it is an SPDX expression, trove classifiers that
name one licence, then the free text of `License`. Two classifiers of families are read as the member that the
family almost always means: "Apache Software License" as 2.0, "BSD License" as three clauses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from scanner.licences.spdx import both, render, valid_expression
from scanner.licences.texts import recognise

_PREFIX: Final = "License :: "

_CLASSIFIERS: Final[Mapping[str, str]] = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "Artistic License": "Artistic-2.0",
    "BSD License": "BSD-3-Clause",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License (GPL)": "GPL-1.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-2.0-or-later",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
}

# What people write into License, in lower case, without "license" and "the".
_WORDS: Final[Mapping[str, str]] = {
    "mit": "MIT",
    "expat": "MIT",
    "isc": "ISC",
    "bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "apache": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache, version 2.0": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "psf": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "mpl 2.0": "MPL-2.0",
    "mozilla public 2.0 (mpl 2.0)": "MPL-2.0",
    "gplv2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "lgplv3": "LGPL-3.0-only",
    "lgplv3+": "LGPL-3.0-or-later",
    "agplv3": "AGPL-3.0-only",
    "agplv3+": "AGPL-3.0-or-later",
    "public domain": "LicenseRef-public-domain",
}


_LONG: Final = 60
"""Characters of a `License` field beyond which it holds a licence's text, not its name."""


def metadata_expression(expression: str, field: str, classifiers: Sequence[str]) -> str:
    """The SPDX expression of a distribution: of its `License-Expression`, `License` and `Classifier` fields."""
    if expression:
        # PEP 639: where it is present, it decides, also where it says nothing that we can read.
        return valid_expression(expression)
    if "\n" not in field and (found := valid_expression(field.strip())):
        return found
    named = {_CLASSIFIERS.get(item.rpartition(" :: ")[2], "") for item in classifiers if item.startswith(_PREFIX)}
    return render(both(named)) or _free(field)


def _free(field: str) -> str:
    words = field.lower().replace("licence", "license").replace(" license", "").removeprefix("the ").strip(" .")
    return _WORDS.get(words, "") or (render(recognise(field)) if len(field) > _LONG else "")
