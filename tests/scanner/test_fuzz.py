"""Records with any bytes in them: the scanner answers, and its answer is JSON."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.codec import from_json, to_json
from scanner.facts import dump, load
from scanner.model import Inventory
from tests.scanner.scanning import scanned
from tests.support.packages import SITE_PACKAGES, Deb, Wheel, dpkg_files, os_release, python_files

FILES = {
    **os_release(),
    **dpkg_files(
        [
            Deb(name="bash", version="5.2-1", files={"usr/bin/bash": b"x", "etc/b": b"y"}, conffiles=("etc/b",)),
            Deb(name="dash", version="1", source="dash-source", source_version="2", multi_arch="same"),
        ]
    ),
    **python_files(Wheel(name="flask", version="3.1.3")),
    "var/lib/dpkg/diversions": b"/a\n/b\nbash\n",
    f"{SITE_PACKAGES}/old.egg-info/PKG-INFO": b"Name: old\nVersion: 1\n",
    f"{SITE_PACKAGES}/old.egg-info/installed-files.txt": b"../old.py\n",
}
PATHS = sorted(path for path in FILES if "/doc/" not in path or path.endswith("copyright"))
PIECES = st.sampled_from(
    [
        b"",
        b"\n",
        b"\n\n",
        b" ",
        b":",
        b"\xff",
        b"\0",
        b"/",
        b"../",
        b"\\",
        b'"',
        b",",
        b"=",
        b"(",
        b"~",
        b"Package: x",
        b"Version: ",
    ]
)
edits = st.tuples(st.sampled_from(PATHS), st.floats(0, 1), st.integers(0, 40), st.one_of(PIECES, st.binary(max_size=6)))


def edited(content: bytes, place: float, length: int, piece: bytes) -> bytes:
    """`content` with `length` bytes at a relative place replaced by `piece`."""
    start = int(place * len(content))
    return content[:start] + piece + content[start + length :]


@given(st.lists(edits, min_size=1, max_size=6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_any_record_give_an_answer(changes: list[tuple[str, float, int, bytes]], above: bool) -> None:
    changed = dict(FILES)
    for path, place, length, piece in changes:
        changed[path] = edited(changed[path], place, length, piece)
    layers = (
        (FILES, {path: content for path, content in changed.items() if content != FILES[path]}) if above else (changed,)
    )
    image = scanned(*layers)
    document = json.dumps(to_json(image.inventory), ensure_ascii=False).encode()
    assert from_json(Inventory, json.loads(document), what="inventory") == image.inventory
    assert all(load(dump(facts), facts.diff_id) == facts for facts in image.facts)
