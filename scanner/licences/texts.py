"""Licences told from a text: references to Debian's common licences, and the sentences that each licence begins with.

This is for copyright files in free form and licence texts pasted into metadata. It recognises; it does not
prove that nothing else stands in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from scanner.licences.spdx import Expression, both

_COMMON: Final = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9][A-Za-z0-9.+-]*[A-Za-z0-9])")
_LATER: Final = re.compile(r"any later version|or later", re.IGNORECASE)

# The files of base-files; those with two ids by whether a later version may be chosen.
_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "AGPL-3.0": ("AGPL-3.0-only", "AGPL-3.0-or-later"),
    "Apache-2.0": ("Apache-2.0", "Apache-2.0"),
    "Artistic": ("Artistic-1.0-Perl", "Artistic-1.0-Perl"),
    "Artistic-2.0": ("Artistic-2.0", "Artistic-2.0"),
    "BSD": ("BSD-3-Clause", "BSD-3-Clause"),
    "BSL-1.0": ("BSL-1.0", "BSL-1.0"),
    "CC-BY-3.0": ("CC-BY-3.0", "CC-BY-3.0"),
    "CC-BY-4.0": ("CC-BY-4.0", "CC-BY-4.0"),
    "CC-BY-SA-3.0": ("CC-BY-SA-3.0", "CC-BY-SA-3.0"),
    "CC-BY-SA-4.0": ("CC-BY-SA-4.0", "CC-BY-SA-4.0"),
    "CC0-1.0": ("CC0-1.0", "CC0-1.0"),
    "GFDL": ("GFDL-1.1-or-later", "GFDL-1.1-or-later"),
    "GFDL-1.1": ("GFDL-1.1-only", "GFDL-1.1-or-later"),
    "GFDL-1.2": ("GFDL-1.2-only", "GFDL-1.2-or-later"),
    "GFDL-1.3": ("GFDL-1.3-only", "GFDL-1.3-or-later"),
    "GPL": ("GPL-1.0-or-later", "GPL-1.0-or-later"),
    "GPL-1": ("GPL-1.0-only", "GPL-1.0-or-later"),
    "GPL-2": ("GPL-2.0-only", "GPL-2.0-or-later"),
    "GPL-3": ("GPL-3.0-only", "GPL-3.0-or-later"),
    "LGPL": ("LGPL-2.0-or-later", "LGPL-2.0-or-later"),
    "LGPL-2": ("LGPL-2.0-only", "LGPL-2.0-or-later"),
    "LGPL-2.1": ("LGPL-2.1-only", "LGPL-2.1-or-later"),
    "LGPL-3": ("LGPL-3.0-only", "LGPL-3.0-or-later"),
    "MPL-1.1": ("MPL-1.1", "MPL-1.1"),
    "MPL-2.0": ("MPL-2.0", "MPL-2.0"),
    "OFL-1.1": ("OFL-1.1", "OFL-1.1"),
}

# The words that a licence is known by, as they stand in its text with single blanks.
_SENTENCES: Final[tuple[tuple[str, str], ...]] = (
    ("permission is hereby granted, free of charge, to any person obtaining a copy of this software", "MIT"),
    ("permission to use, copy, modify, and/or distribute this software for any purpose", "ISC"),
    ("permission to use, copy, modify, and distribute this software for any purpose with or without fee", "ISC"),
    ("this software is provided 'as-is', without any express or implied warranty", "Zlib"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("mozilla public license, v. 2.0", "MPL-2.0"),
    ("this is free and unencumbered software released into the public domain", "Unlicense"),
)
_BSD: Final = "redistribution and use in source and binary forms, with or without modification, are permitted"
_BSD_ADVERTISING: Final = "all advertising materials mentioning features"
_BSD_NAMES: Final = re.compile(r"(?:neither the name|the names? of|may not be used to endorse)")

MAX_TEXT: Final = 1_000_000
"""Characters of a text that are searched."""


def recognise(text: str) -> Expression:
    """The expression of all licences that `text` names; "" if it names none that we know."""
    text = text[:MAX_TEXT]
    found = _common(text)
    plain = re.sub(r"[\s*#]+", " ", text.replace("`", "'")).lower()
    found += [licence for sentence, licence in _SENTENCES if sentence in plain]
    if _BSD in plain:
        found.append(_bsd(plain))
    return both(found)


def _common(text: str) -> list[str]:
    names = {name.rstrip(".") for name in _COMMON.findall(text)} & _FILES.keys()
    # "GPL" beside "GPL-2" says where the newest text is, not that there is another licence.
    names -= {name for name in ("GPL", "LGPL", "GFDL") if any(other.startswith(f"{name}-") for other in names)}
    later = 1 if _LATER.search(text) else 0
    return [_FILES[name][later] for name in names]


def _bsd(plain: str) -> str:
    if _BSD_ADVERTISING in plain:
        return "BSD-4-Clause"
    return "BSD-3-Clause" if _BSD_NAMES.search(plain) else "BSD-2-Clause"
