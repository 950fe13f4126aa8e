"""Licences as SPDX expressions, from Debian's copyright files and Python's metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_expression import get_spdx_licensing

from scanner.licences.debian import copyright_expression, short_name
from scanner.licences.python import metadata_expression
from scanner.licences.spdx import reference, render, valid_expression

HEADER = "Format: copyright-format/1.0\nUpstream-Name: x\n\n"


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("GPL3+", "GPL-3.0-or-later"),
        ("GPL", "GPL-1.0-or-later"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("LGPL", "LGPL-2.0-or-later"),
        ("AGPL-3+", "AGPL-3.0-or-later"),
        ("AGPL-3.0", "AGPL-3.0-only"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("Apache-2.0", "Apache-2.0"),
        ("Apache-2", "Apache-2.0"),
        ("MPL-2", "MPL-2.0"),
        ("CC-BY-SA-4", "CC-BY-SA-4.0"),
        ("Perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        ("Artistic or GPL-1+", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        ("BSL-1.0 and Zlib", "BSL-1.0 AND Zlib"),
        (
            "GPL-2+ or AFL-2.1, and Expat and Tcl-BSDish",
            "(AFL-2.1 OR GPL-2.0-or-later) AND LicenseRef-Tcl-BSDish AND MIT",
        ),
        ("GPL-2 AND MIT OR ISC", "(GPL-2.0-only AND MIT) OR ISC"),
        ("GPL-3+ with Bison exception", "GPL-3.0-or-later WITH Bison-exception-2.2"),
        ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
        # An exception that has no SPDX id is left out: then more is asked, not less.
        ("GPL-2+-with-link-exception", "GPL-2.0-or-later"),
        ("public-domain", "LicenseRef-public-domain"),
        ("what ever (c)", "LicenseRef-what-ever-c"),
        ("AGPL-17", "LicenseRef-agpl-17"),
    ],
)
def test_short_names_of_copyright_files(line: str, expression: str) -> None:
    assert render(short_name(line)).lower() == expression.lower()
    assert valid_expression(expression)


def test_all_sets_of_files_count_but_not_the_packaging() -> None:
    text = HEADER + (
        "Files: *\nCopyright: x\nLicense: MIT\n\n"
        "Files: lib/*\nCopyright: x\nLicense: GPL-2+\n text\n .\n more\n\n"
        "Files: debian/*\nCopyright: x\nLicense: GPL-3+\n\n"
        "License: GPL-2+\n the text itself, which is no further licence\n"
    )
    assert copyright_expression(text) == "GPL-2.0-or-later AND MIT"


def test_the_header_may_name_the_licence_of_the_whole() -> None:
    assert copyright_expression("Format: x\nLicense: Zlib\n") == "Zlib"


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("On Debian systems, see `/usr/share/common-licenses/GPL-2'.", "GPL-2.0-only"),
        (
            "either version 2, or (at your option) any later version.\nSee /usr/share/common-licenses/GPL-2.",
            "GPL-2.0-or-later",
        ),
        ("See /usr/share/common-licenses/GPL and /usr/share/common-licenses/GPL-3.", "GPL-3.0-only"),
        ("/usr/share/common-licenses/Apache-2.0 and /usr/share/common-licenses/BSD", "Apache-2.0 AND BSD-3-Clause"),
        (
            "Permission is hereby granted, free of charge, to any person obtaining\n * a copy of this software",
            "MIT",
        ),
        (
            "Redistribution and use in source and binary forms, with or without\nmodification, are permitted",
            "BSD-2-Clause",
        ),
        (
            (
                "Redistribution and use in source and binary forms, with or without modification, are permitted ... "
                "Neither the name of the University"
            ),
            "BSD-3-Clause",
        ),
        (
            (
                "Redistribution and use in source and binary forms, with or without modification, are permitted ... "
                "3. All advertising materials mentioning features or use"
            ),
            "BSD-4-Clause",
        ),
        ("All rights reserved. Do not copy.", ""),
        ("", ""),
        # A machine-readable file that is broken is still searched.
        ("Format: x\n\nFiles: *\nnonsense\n/usr/share/common-licenses/MPL-2.0", "MPL-2.0"),
    ],
)
def test_copyright_files_in_free_form(text: str, expression: str) -> None:
    assert copyright_expression(text) == expression


@pytest.mark.parametrize(
    ("expression", "field", "classifiers", "found"),
    [
        ("MIT", "GPL", (), "MIT"),
        ("mit OR apache-2.0", "", (), "MIT OR Apache-2.0"),
        ("LicenseRef-Mine AND MIT", "", (), "LicenseRef-Mine AND MIT"),
        # Where the new field is present it decides, also if it says nothing that can be read.
        ("Whatever", "MIT", ("License :: OSI Approved :: MIT License",), ""),
        ("", "Apache-2.0", ("License :: OSI Approved :: MIT License",), "Apache-2.0"),
        ("", "see LICENSE", ("License :: OSI Approved :: MIT License",), "MIT"),
        (
            "",
            "",
            ("License :: OSI Approved :: BSD License", "License :: OSI Approved :: Apache Software License"),
            "Apache-2.0 AND BSD-3-Clause",
        ),
        ("", "", ("License :: OSI Approved :: GNU Affero General Public License v3",), "AGPL-3.0-only"),
        ("", "The MIT License", (), "MIT"),
        ("", "Apache License, Version 2.0", (), "Apache-2.0"),
        ("", "GPLv3+", (), "GPL-3.0-or-later"),
        ("", "UNLICENSED", (), ""),
        ("", "UNKNOWN", ("Programming Language :: Python",), ""),
        ("", "Proprietary", (), ""),
        (
            "",
            "Permission is hereby granted, free of charge, to any person obtaining a copy of this software",
            (),
            "MIT",
        ),
    ],
)
def test_python_metadata(expression: str, field: str, classifiers: tuple[str, ...], found: str) -> None:
    assert metadata_expression(expression, field, classifiers) == found


@pytest.mark.parametrize("text", ["(" * 900 + "MIT", "MIT AND", "AND", "MIT MIT", "LicenseRef-scancode-x", "x" * 5000])
def test_hostile_expressions_are_refused(text: str) -> None:
    assert valid_expression(text) == ""


@given(st.lists(st.sampled_from(["GPL-2+", "Expat", "Foo bar", "BSD-3-clause"]), min_size=1, max_size=4), st.data())
def test_every_expression_is_valid_spdx(names: list[str], data: st.DataObject) -> None:
    line = names[0]
    for name in names[1:]:
        line += data.draw(st.sampled_from([" and ", " or ", ", and ", ", or "])) + name
    rendered = render(short_name(line))
    assert valid_expression(rendered), rendered
    assert get_spdx_licensing().is_equivalent(rendered, valid_expression(rendered))


@given(st.text(max_size=60))
def test_any_text_gives_a_valid_reference(text: str) -> None:
    assert valid_expression(reference(text))
