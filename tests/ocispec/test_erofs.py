"""The root index, against the kernel's own view of it: mounted, walked, compared with the tree.

Types, modes, owners, times, attributes, links, targets, devices and the contents of files must be the
tree's, on odd trees, on random ones, and on what is left of mutated tars (L2: reader and mount agree).
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.entry import Entry, Kind
from ocispec.erofs import FORMAT_VERSION, mount_options, root_index
from ocispec.errors import LayerError, LimitError
from ocispec.layer import LayerContent
from ocispec.merge import merge
from ocispec.tree import Node, Tree
from tests.support.kernel import disk, mounted, need_erofs
from tests.support.layers import archive, contents, header, member
from tests.support.tools import need
from tests.support.view import View, differences, view_of_folder, view_of_tree

DIR, LINK, SYMLINK, FIFO = b"5", b"1", b"2", b"6"

ROOT = [member(b"./", DIR, mtime=7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_erofs()
    return disk([tmp_path_factory.mktemp("erofs"), Path("/var/tmp"), Path.cwd()])


def both_views(folder: Path, tars: list[bytes]) -> tuple[View, View]:
    """What the kernel shows of the index of some layers, and what their tree says."""
    layers = contents(tars)
    tree = merge(layers)
    index = folder / f"index-{os.getpid()}"
    index.write_bytes(root_index(tree, layers))
    paths = []
    for number, tar in enumerate(tars):
        paths.append(folder / f"layer-{os.getpid()}-{number}")
        paths[-1].write_bytes(tar)
    try:
        with mounted(index, paths) as root:
            got = view_of_folder(root)
    finally:
        for path in (index, *paths):
            path.unlink()
    return got, view_of_tree(tree, [io.BytesIO(tar) for tar in tars])


def check(folder: Path, *tars: bytes) -> View:
    got, want = both_views(folder, list(tars))
    assert differences(got, want) == []
    return got


pytestmark = pytest.mark.root


def test_every_kind_of_file(folder: Path) -> None:
    acl = b"\2\0\0\0" + b"\1\0\6\0\xff\xff\xff\xff" + b"\2\0\6\0\x0a\0\0\0" + b"\4\0\4\0\xff\xff\xff\xff"
    acl += b"\x10\0\6\0\xff\xff\xff\xff" + b"\x20\0\4\0\xff\xff\xff\xff"
    tar = archive(
        member(b"./", DIR, mode=0o1711, uid=3, gid=4, mtime=-1, xattrs={b"user.root": b"yes"}),
        member(b"empty"),
        member(b"setuid", data=b"x" * 513, mode=0o6755, uid=2**32 - 2, gid=2**32 - 2),
        member(b"block", data=b"y" * 512),
        member(b"old", data=b"1", extended={b"mtime": b"-8589934592.000000001"[:-10]}),
        member(b"new", data=b"2", extended={b"mtime": b"17179869184.999999999"}),
        member(b"caps", data=b"3", xattrs={b"security.capability": b"\1\0\0\2\0\4" + bytes(14), b"trusted.x": b""}),
        member(b"acl", data=b"4", mode=0o664, xattrs={b"system.posix_acl_access": acl}),
        member(b"acls/", DIR, mode=0o775, xattrs={b"system.posix_acl_default": acl, b"system.posix_acl_access": acl}),
        member(b"zero", b"3", device=(1, 5), mode=0o666, xattrs={b"security.x": b"y"}),
        member(b"disk", b"4", device=(4095, 2**20 - 1)),
        member(b"odd", b"4", device=(259, 70_000)),
        member(b"pipe", FIFO, mode=0),
        member(b"pipe2", LINK, link=b"pipe"),
        member(b"sym", SYMLINK, link=b"/nowhere\xff", xattrs={b"trusted.s": b"1"}),
        member(b"sym2", LINK, link=b"sym"),
        member(b"caps2", LINK, link=b"caps"),
        member(b"d/e/", DIR, mode=0o500),
        member(b"d/e/caps3", LINK, link=b"caps"),
        *[
            member(b"names/" + name)
            for name in (b"\n", b"\xff\xfe", b"!", b"+", b"-", b" ", b"\\", b"n" * 255, b"...", b"a.b")
        ],
    )
    view = check(folder, tar)
    assert view[b"setuid"].uid == 2**32 - 2
    assert view[b"d/e/caps3"].same == b"caps"
    assert view[b"caps"].nlink == 3
    assert view[b"tmp"].mode == 0o1777


@pytest.mark.parametrize("step", [1, 7])
def test_directories_of_every_length_around_a_block(folder: Path, step: int) -> None:
    # Inline, inline behind full blocks, exactly full, and too long to be inline.
    parts = list(ROOT)
    for count in range(0, 90, step):
        parts.append(member(b"d%d/" % count, DIR))
        parts += [header(b"d%d/%s" % (count, b"n" * (1 + index % 40) + b"%d" % index)) for index in range(count)]
    check(folder, archive(*parts))


def test_symlinks_and_attributes_of_every_length_around_a_block(folder: Path) -> None:
    parts = list(ROOT)
    parts += [
        member(b"s%d" % length, SYMLINK, link=b"t" * length) for length in [1, *range(380, 520, 3), 1024, 1025, 4095]
    ]
    for length in [*range(0, 460, 7), 500, 511, 512, 3000, 65_000]:
        xattrs = {b"trusted.v": b"v" * length}
        parts.append(member(b"f%d" % length, data=b"x", xattrs=xattrs))
        parts.append(member(b"l%d" % length, SYMLINK, link=b"u" * 40, xattrs=xattrs))
        parts.append(member(b"d%d/" % length, DIR, xattrs=xattrs))
        parts += [header(b"d%d/%d" % (length, index)) for index in range(length % 23)]
    many = {b"user.%d" % index: b"%d" % index for index in range(500)}
    check(folder, archive(*parts, member(b"many", data=b"x", xattrs=many)))


def test_large_and_deep_trees(folder: Path) -> None:
    deep = b"/".join([b"deep"] * 300)
    wide = [header(b"wide/%d" % index) for index in range(20_000)]
    check(folder, archive(*ROOT, *wide, member(deep + b"/file", data=b"bottom")))


@pytest.mark.parametrize("count", [0, 1, 2, 20, 128, 300])
def test_many_layers_are_many_devices(folder: Path, count: int) -> None:
    tars = [
        archive(member(b"l%d" % index, data=b"%d" % index * 300), member(b"same", data=b"%d" % index))
        for index in range(count)
    ]
    view = check(folder, *tars)
    assert (b"same" in view) == (count > 0)


def test_layers_that_write_links_whiteouts_and_symlinked_parents(folder: Path) -> None:
    base = archive(
        *ROOT,
        member(b"bin", SYMLINK, link=b"usr/bin"),
        member(b"usr/bin/a", data=b"1"),
        member(b"usr/bin/b", data=b"2"),
        member(b"gone/x"),
    )
    top = archive(
        member(b"bin/c", LINK, link=b"usr/bin/a"),
        member(b"usr/bin/.wh.a"),
        member(b".wh.gone"),
        member(b"bin/b", data=b"3"),
    )
    view = check(folder, base, top, archive())
    assert b"gone" not in view
    assert view[b"usr/bin/c"].nlink == 1


def test_a_layer_twice_in_one_image(folder: Path) -> None:
    tar = archive(member(b"a", data=b"x" * 5000))
    check(folder, tar, archive(member(b".wh.a")), tar)


@pytest.mark.parametrize("way", ["absolute symlink", "dots", "hard link to a symlink", "root entry", "below a file"])
def test_l1_l3_nothing_outside_the_tree_is_written_or_shown(folder: Path, way: str) -> None:
    # CVE-2014-9356, CVE-2021-29136, CVE-2025-4517 and their like end in a file of the host.
    planted = folder / f"planted-{os.getpid()}"
    planted.mkdir()
    (planted / "victim").write_bytes(b"of the host")
    before = (planted / "victim").stat()
    outside = bytes(planted)
    ups = b"../" * 40 + outside.lstrip(b"/")
    members = {
        "absolute symlink": [member(b"a", SYMLINK, link=outside), member(b"a/victim", data=b"evil")],
        "dots": [member(b"a/b/", DIR), member(b"a/b/d", SYMLINK, link=ups), member(b"a/b/d/victim", data=b"evil")],
        "hard link to a symlink": [
            member(b"s", SYMLINK, link=outside + b"/victim"), member(b"h", LINK, link=b"s"), member(b"h", data=b"evil")
        ],
        "root entry": [member(b"./", SYMLINK, link=outside), member(b"victim", data=b"evil")],
        "below a file": [member(b"f", SYMLINK, link=outside + b"/victim"), member(b"f/x", data=b"evil")],
    }[way]  # fmt: skip
    inside = member(outside.lstrip(b"/") + b"/", DIR)
    try:
        view = check(folder, archive(inside, *members))
    except LayerError:
        assert way in ("root entry", "below a file")
    else:
        assert all(seen.sha256 != hashlib.sha256(b"of the host").hexdigest() for seen in view.values())
    after = (planted / "victim").stat()
    assert ((planted / "victim").read_bytes(), after.st_ctime_ns) == (b"of the host", before.st_ctime_ns)
    assert [path.name for path in planted.iterdir()] == ["victim"]
    (planted / "victim").unlink()
    planted.rmdir()


_NAME = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not name.startswith(b".wh.")
)
_PATH = st.lists(_NAME, min_size=1, max_size=4).map(b"/".join)
_XATTRS = st.dictionaries(
    st.sampled_from([b"trusted.", b"security."]).flatmap(
        lambda prefix: st.binary(min_size=1, max_size=20).map(lambda rest: prefix + rest)
    ),
    st.binary(max_size=300),
    max_size=3,
).map(
    lambda found: {
        name: value
        for name, value in found.items()
        if b"\0" not in name and b"=" not in name and b"overlay" not in name
    }
)


@st.composite
def _members(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([b"0", b"0", b"0", b"5", b"2", b"3", b"6", b"1"]))
    path = draw(_PATH)
    if kind == b"1":
        return member(path, LINK, link=draw(st.sampled_from([b"first", b"second"])))
    return member(
        path + b"/" if kind == b"5" else path,
        kind,
        draw(st.binary(max_size=1500)) if kind == b"0" else b"",
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 2)),
        gid=draw(st.integers(0, 2**32 - 2)),
        mtime=draw(st.integers(-(2**33), 2**34)),
        link=draw(st.binary(min_size=1, max_size=600).filter(lambda text: b"\0" not in text)) if kind == b"2" else b"",
        device=(draw(st.integers(1, 4095)), draw(st.integers(0, 2**20 - 1))),
        xattrs=draw(_XATTRS),
    )


_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_SETTINGS
@given(layers=st.lists(st.lists(_members(), max_size=15), min_size=1, max_size=3))
def test_random_trees(folder: Path, layers: list[list[bytes]]) -> None:
    ends = [member(b"first", data=b"1"), member(b"second", SYMLINK, link=b"first")]
    tars = [archive(*ends, *members) for members in layers]
    try:
        got, want = both_views(folder, tars)
    except LayerError:
        return  # e.g. a file where another member's directory should be
    assert differences(got, want) == []


_SEED = archive(
    *ROOT,
    member(b"etc/", DIR, xattrs={b"user.a": b"1"}),
    member(b"etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n" * 40),
    member(b"etc/link", SYMLINK, link=b"passwd", xattrs={b"trusted.b": b"2"}),
    member(b"etc/hard", LINK, link=b"etc/passwd"),
    member(b"long/" * 30 + b"name", data=b"data", uid=2**31, mtime=-5),
    member(b"dev/null", b"3", device=(1, 3)),
    member(b"etc/.wh.shadow"),
)


@settings(_SETTINGS, max_examples=400)
@given(data=st.data())
def test_l2_mutants_are_refused_or_mount_as_their_tree(folder: Path, data: st.DataObject) -> None:
    mutant = bytearray(_SEED)
    blocks = [start for start in range(0, len(mutant), 512) if mutant[start + 257 : start + 262] == b"ustar"]
    for _ in range(data.draw(st.integers(1, 2))):
        # Into a header, mostly: its name, numbers, type and link.
        start = data.draw(st.sampled_from(blocks))
        place = start + data.draw(
            st.one_of(st.integers(0, 12), st.integers(100, 147), st.integers(156, 180), st.integers(512, 620))
        )
        mutant[min(place, len(mutant) - 1)] = data.draw(
            st.one_of(st.sampled_from(b"0123567/.ab\0\xff"), st.integers(0, 255))
        )
    for start in blocks:
        block = mutant[start : start + 512]
        block[148:156] = b" " * 8
        mutant[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    try:
        got, want = both_views(folder, [bytes(mutant)])
    except LayerError:
        return
    assert differences(got, want) == []


def shuffled(tree: Tree, seed: int) -> Tree:
    """The same tree, its dictionaries filled in another order."""
    chance = random.Random(seed)
    for _, node in tree.walk():
        if node.is_directory:
            items = list(node.children.items())
            chance.shuffle(items)
            node.children.clear()
            node.children.update(items)
    return tree


def test_the_index_is_a_function_of_the_layers() -> None:
    layers = contents([_SEED, archive(member(b"x", data=b"1"))])
    first = root_index(merge(layers), layers)
    assert root_index(merge(layers), layers) == first
    assert root_index(shuffled(merge(layers), 1), layers) == first
    assert root_index(merge(layers[:1]), layers[:1]) != first


def test_the_index_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(_SEED)
    code = (
        "import hashlib, sys; from ocispec.layer import read_layer; from ocispec.merge import merge\n"
        "from ocispec.erofs import root_index\n"
        "layer = read_layer(open(sys.argv[1], 'rb'), what='l')\n"
        "print(hashlib.sha256(root_index(merge([layer]), [layer])).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "layer")],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2]), "TZ": zone},
            capture_output=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    layers = contents([_SEED])
    assert digests == {f"{Digest.of(root_index(merge(layers), layers)).hex}\n".encode()}


def test_the_format_is_pinned() -> None:
    # A change of these bytes is a new FORMAT_VERSION (or READER_VERSION), and a migration with two digests.
    layers = contents([_SEED])
    assert FORMAT_VERSION == 1
    assert Digest.of(root_index(merge(layers), layers)).hex == PINNED


PINNED = "22b41c67062f331855aa0ec09493bf493c2e161f5196adf194828f0a938f94fc"


def test_fsck_finds_nothing(folder: Path) -> None:
    layers = contents([_SEED])
    index = folder / f"fsck-{os.getpid()}"
    index.write_bytes(root_index(merge(layers), layers))
    tar = folder / f"fsck-tar-{os.getpid()}"
    tar.write_bytes(_SEED)
    try:
        done = subprocess.run([need("fsck.erofs"), f"--device={tar}", str(index)], capture_output=True, check=False)
    finally:
        index.unlink()
        tar.unlink()
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_options_name_the_layers_in_order() -> None:
    assert mount_options(["/a,b", "/c"]) == (("device", "/a,b"), ("device", "/c"))


def test_more_than_erofs_can_address() -> None:
    def layer(size: int) -> LayerContent:
        return LayerContent(diff_id=Digest.of(b""), size=size, members=())

    tree = merge([layer(1024)])
    assert root_index(tree, [layer(2**40 - 10_000)] * 2)
    with pytest.raises(LimitError, match="expected 4294967295 at most"):
        root_index(tree, [layer(2**40)] * 2)


def test_a_file_far_inside_its_layer(folder: Path) -> None:
    # 5 GiB into a (sparse) tar: block numbers beyond 2^23, offsets beyond 2^32.
    offset = 5 * 2**30
    entry = Entry(b"far", Kind.FILE, 0o644, 0, 0, (0, 0), 3, offset)
    layer = LayerContent(diff_id=Digest.of(b"far"), size=offset + 512, members=(entry,))
    tree = merge([layer])
    assert isinstance(tree.get(b"far"), Node)
    index, tar = folder / f"far-{os.getpid()}", folder / f"far-tar-{os.getpid()}"
    index.write_bytes(root_index(tree, [layer]))
    with tar.open("wb") as file:
        file.truncate(offset + 512)
        file.seek(offset)
        file.write(b"far")
    try:
        with mounted(index, [tar]) as root, Path(f"/proc/self/fd/{root}/far").open("rb") as far:
            assert far.read() == b"far"
    finally:
        index.unlink()
        tar.unlink()
