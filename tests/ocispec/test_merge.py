"""One rule to apply layers: each open case of the specification is decided in docs/layers.md and tested here."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.entry import Kind
from ocispec.errors import LayerError, LayerLimitError
from ocispec.limits import Limits
from ocispec.merge import Change, merge, merge_with_changes
from ocispec.tree import SYNTHETIC, Node, Tree
from tests.support.layers import MTIME, archive, contents, header, member

DIR = b"5"
LINK = b"1"
SYMLINK = b"2"
MOUNT_POINTS = [b"dev", b"etc", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"proc", b"run", b"sys", b"tmp"]


def tree(*layers: bytes) -> Tree:
    return merge(contents(layers))


def paths(merged: Tree) -> list[bytes]:
    """The paths of a tree that are not synthetic; the root is left out."""
    return [path for path, node in merged.walk() if path and node.layer != SYNTHETIC]


def node(merged: Tree, path: bytes) -> Node:
    found = merged.get(path)
    assert found is not None, path
    return found


def refusal(*layers: bytes, limits: Limits | None = None) -> LayerError:
    with pytest.raises(LayerError) as caught:
        merge(contents(layers), limits=limits or Limits())
    error = caught.value
    assert "member " in str(error)
    assert error.repair
    return error


def changes(*layers: bytes) -> list[tuple[bytes, int, str, int]]:
    _, found = merge_with_changes(contents(layers))
    return [(change.path, change.layer, change.kind, change.lower_layer) for change in found]


BASE = archive(
    member(b"bin", SYMLINK, link=b"usr/bin"),
    member(b"usr/", DIR, mode=0o711, uid=5, gid=6, mtime=5),
    member(b"usr/bin/", DIR, mode=0o750, mtime=6),
    member(b"usr/bin/sh", data=b"shell", mode=0o755),
    member(b"usr/bin/ls", data=b"list"),
    member(b"usr/bin/dir", LINK, link=b"usr/bin/ls"),
    member(b"srv/", DIR),
    member(b"srv/a/", DIR),
    member(b"srv/a/one", data=b"1"),
    member(b"srv/a/two", data=b"2"),
)


def test_a_layer_replaces_what_has_its_name() -> None:
    merged = tree(BASE, archive(member(b"usr/bin/sh", data=b"another", mode=0o700)))
    shell = node(merged, b"usr/bin/sh")
    assert (shell.layer, shell.entry.size, shell.entry.mode) == (1, 7, 0o700)
    assert node(merged, b"usr/bin/ls").layer == 0


def test_two_directories_are_merged() -> None:
    merged = tree(BASE, archive(member(b"srv/a/", DIR, mode=0o700, uid=9)))
    assert (node(merged, b"srv/a").entry.mode, node(merged, b"srv/a").entry.uid, node(merged, b"srv/a").layer) == (
        0o700,
        9,
        1,
    )
    assert [path for path in paths(merged) if path.startswith(b"srv/")] == [b"srv/a", b"srv/a/one", b"srv/a/two"]


@pytest.mark.parametrize("kind", [b"0", b"2", b"6"])
def test_a_file_replaces_a_whole_directory(kind: bytes) -> None:
    merged = tree(BASE, archive(member(b"srv/a", kind, link=b"x" if kind == b"2" else b"")))
    assert [path for path in paths(merged) if path.startswith(b"srv")] == [b"srv", b"srv/a"]


def test_a_directory_replaces_a_file_or_symlink() -> None:
    merged = tree(BASE, archive(member(b"usr/bin/sh/", DIR), member(b"usr/bin/sh/x"), member(b"bin/", DIR)))
    assert node(merged, b"usr/bin/sh/x").layer == 1
    assert node(merged, b"bin").entry.kind is Kind.DIRECTORY
    assert node(merged, b"bin").children == {}


def test_whiteouts_hide_what_is_below() -> None:
    merged = tree(BASE, archive(member(b"srv/a/.wh.one"), member(b".wh.usr"), member(b".wh.never")))
    assert paths(merged) == [b"bin", b"srv", b"srv/a", b"srv/a/two"]


def test_an_opaque_directory_hides_its_children_below() -> None:
    merged = tree(BASE, archive(member(b"srv/.wh..wh..opq"), member(b"srv/b")))
    assert [path for path in paths(merged) if path.startswith(b"srv")] == [b"srv", b"srv/b"]
    # It keeps what it was itself: owner, mode and time.
    assert node(tree(BASE, archive(member(b"usr/.wh..wh..opq"))), b"usr").entry.mode == 0o711


def test_an_opaque_root_leaves_nothing() -> None:
    assert paths(tree(BASE, archive(member(b"x"), member(b".wh..wh..opq")))) == [b"x"]


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_and_its_own_entry_in_one_layer(first: bool) -> None:
    # layer.md: whiteouts apply to lower layers only, wherever they stand in the tar.
    pair = [member(b"usr/bin/.wh.sh"), member(b"usr/bin/sh", data=b"new")]
    merged = tree(BASE, archive(*(pair if first else pair[::-1])))
    assert node(merged, b"usr/bin/sh").layer == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_and_its_own_directory_in_one_layer(first: bool) -> None:
    pair = [member(b"srv/.wh.a"), member(b"srv/a/", DIR) + member(b"srv/a/three")]
    merged = tree(BASE, archive(*(pair if first else pair[::-1])))
    assert [path for path in paths(merged) if path.startswith(b"srv/")] == [b"srv/a", b"srv/a/three"]


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_and_a_directory_that_is_only_implied(first: bool) -> None:
    # The lower directory is gone with its owner and mode; what the layer put there stays.
    pair = [member(b".wh.usr"), member(b"usr/bin/new")]
    merged = tree(BASE, archive(*(pair if first else pair[::-1])))
    assert [path for path in paths(merged) if path.startswith(b"usr")] == [b"usr", b"usr/bin", b"usr/bin/new"]
    for path in (b"usr", b"usr/bin"):
        entry = node(merged, path).entry
        assert (entry.mode, entry.uid, entry.mtime, node(merged, path).layer) == (0o755, 0, (0, 0), 1)


@pytest.mark.parametrize("first", [True, False])
def test_an_opaque_marker_before_or_behind_its_siblings(first: bool) -> None:
    # The two examples of layer.md, "Whiteouts".
    below = archive(member(b"a/", DIR), member(b"a/b/", DIR), member(b"a/b/c/", DIR), member(b"a/b/c/bar"))
    marker, rest = member(b"a/.wh..wh..opq"), member(b"a/b/", DIR) + member(b"a/b/c/", DIR) + member(b"a/b/c/foo")
    merged = tree(below, archive(member(b"a/", DIR), *([marker, rest] if first else [rest, marker])))
    assert paths(merged) == [b"a", b"a/b", b"a/b/c", b"a/b/c/foo"]


def test_a_whiteout_does_not_reach_its_own_layer_but_the_next_does() -> None:
    layer = archive(member(b"x/y"), member(b".wh.x"))
    assert paths(tree(layer)) == [b"x", b"x/y"]
    assert paths(tree(layer, archive(member(b".wh.x")))) == []


def test_implied_parents_keep_what_the_lower_layer_said() -> None:
    merged = tree(BASE, archive(member(b"usr/bin/new"), member(b"usr/lib/new")))
    entry = node(merged, b"usr").entry
    assert (entry.mode, entry.uid, entry.gid, entry.mtime, node(merged, b"usr").layer) == (0o711, 5, 6, (5, 0), 0)
    made = node(merged, b"usr/lib")
    assert (made.entry.mode, made.entry.uid, made.entry.mtime, made.layer) == (0o755, 0, (0, 0), 1)


def test_a_whiteout_implies_its_parents() -> None:
    # podman and containerd make them too.
    assert paths(tree(archive(member(b"p/q/.wh.x"), member(b"o/.wh..wh..opq")))) == [b"o", b"p", b"p/q"]


def test_parents_that_are_symlinks_are_written_through() -> None:
    merged = tree(
        BASE, archive(member(b"bin/new", data=b"n"), member(b"bin/.wh.sh"), member(b"bin/l", LINK, link=b"bin/ls"))
    )
    assert node(merged, b"bin").entry.kind is Kind.SYMLINK
    assert node(merged, b"usr/bin/new").entry.path == b"usr/bin/new"
    assert merged.get(b"usr/bin/sh") is None
    assert node(merged, b"usr/bin/l") is node(merged, b"usr/bin/ls")


def test_a_symlinked_parent_in_the_same_layer_is_written_through() -> None:
    merged = tree(
        archive(
            member(b"real/", DIR),
            member(b"alias", SYMLINK, link=b"/real/../real/."),
            member(b"alias/x"),
            member(b"alias/y"),
        )
    )
    assert paths(merged) == [b"alias", b"real", b"real/x", b"real/y"]


def test_an_opaque_symlink_clears_where_it_leads() -> None:
    assert [path for path in paths(tree(BASE, archive(member(b"bin/.wh..wh..opq")))) if b"bin" in path] == [
        b"bin",
        b"usr/bin",
    ]


def test_a_symlink_replaced_within_the_layer_is_not_followed_any_more() -> None:
    layer = archive(
        member(b"bin/one"),
        member(b"bin/", DIR),
        member(b"bin/two"),
        member(b"bin", SYMLINK, link=b"srv"),
        member(b"bin/three"),
    )
    merged = tree(BASE, layer)
    assert [path for path in paths(merged) if path.endswith((b"one", b"two", b"three"))] == [
        b"srv/a/one",
        b"srv/a/two",
        b"srv/three",
        b"usr/bin/one",
    ]


@pytest.mark.parametrize("target", [b"../../../../srv", b"/../srv", b"usr/../../srv/.", b"/srv"])
def test_l3_symlinked_parents_end_at_the_root(target: bytes) -> None:
    merged = tree(BASE, archive(member(b"evil", SYMLINK, link=target), member(b"evil/passwd", data=b"x")))
    assert node(merged, b"srv/passwd").layer == 1


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (archive(member(b"loop", SYMLINK, link=b"loop"), member(b"loop/x")), "more than 40 symlinks"),
        (archive(member(b"nowhere", SYMLINK, link=b"srv/none"), member(b"nowhere/x")), "leads nowhere"),
        (archive(member(b"usr/bin/sh/x")), "in b'usr/bin/sh', which is no directory"),
        (archive(member(b"usr/bin/sh/.wh.x")), "which is no directory"),
        (archive(member(b"usr/bin/sh/.wh..wh..opq")), "which is no directory"),
        (archive(member(b"f", SYMLINK, link=b"usr/bin/sh"), member(b"f/x")), "which is no directory"),
        (archive(member(b"l", LINK, link=b"usr/bin")), "where a directory is"),
        (archive(member(b"l", LINK, link=b"none")), "where nothing is"),
        (archive(member(b"l", LINK, link=b"usr/bin/sh/x")), "where nothing is"),
        (archive(member(b"l", LINK, link=b"later"), member(b"later")), "where nothing is"),
        (archive(member(b"srv/a", LINK, link=b"srv/a/one")), "where nothing is"),
        (archive(member(b"bin/ls", LINK, link=b"usr/bin/ls")), "where nothing is"),
        (
            archive(member(b"usr/bin/.wh.ls"), member(b"usr/bin/.wh.dir"), member(b"l", LINK, link=b"usr/bin/ls")),
            "where nothing is",
        ),
    ],
)
def test_l3_what_does_not_fit_on_the_layers_below(layer: bytes, problem: str) -> None:
    error = refusal(BASE, layer)
    assert problem in str(error)
    assert str(error).startswith("layer sha256:")
    assert error.offset is None


def test_forty_symlinks_are_followed_and_one_more_is_not() -> None:
    chain = [member(b"l%d" % index, SYMLINK, link=b"l%d" % (index + 1)) for index in range(41)]
    end = member(b"l41/", DIR)
    assert b"l41/x" in paths(tree(archive(*chain, end, member(b"l2/x"), member(b"l1/y"))))
    assert "more than 40" in str(refusal(archive(*chain, end, member(b"l0/x"))))


def test_hard_links_share_one_node() -> None:
    merged = tree(BASE)
    assert node(merged, b"usr/bin/ls") is node(merged, b"usr/bin/dir")
    assert node(merged, b"usr/bin/ls").nlink == 2
    assert node(merged, b"usr/bin").nlink == 2
    assert node(merged, b"usr").nlink == 3
    assert merged.root.nlink == 2 + sum(child.is_directory for child in merged.root.children.values())


def test_a_link_into_a_lower_layer() -> None:
    # kaniko and umoci write these; containerd applies them to the mounted layers.
    merged = tree(BASE, archive(member(b"copy", LINK, link=b"/usr/bin/sh"), member(b"sym", LINK, link=b"bin")))
    assert node(merged, b"copy") is node(merged, b"usr/bin/sh")
    assert (node(merged, b"copy").layer, node(merged, b"copy").nlink) == (0, 2)
    assert node(merged, b"sym") is node(merged, b"bin")


def test_a_link_across_a_whiteout() -> None:
    # The name that the link was made from goes, the file stays under the other; whichever comes first.
    layer = archive(
        member(b"usr/bin/new", LINK, link=b"usr/bin/sh"), member(b"usr/bin/.wh.sh"), member(b"usr/bin/.wh.new")
    )
    merged = tree(BASE, layer)
    assert merged.get(b"usr/bin/sh") is None
    new = node(merged, b"usr/bin/new")
    assert (new.nlink, new.entry.path, new.layer) == (1, b"usr/bin/new", 0)


def test_replacing_one_name_of_a_hard_link_leaves_the_other() -> None:
    merged = tree(BASE, archive(member(b"usr/bin/ls", data=b"new")))
    assert (node(merged, b"usr/bin/dir").layer, node(merged, b"usr/bin/dir").nlink) == (0, 1)
    assert node(merged, b"usr/bin/dir").entry.path == b"usr/bin/dir"
    assert (node(merged, b"usr/bin/ls").layer, node(merged, b"usr/bin/ls").nlink) == (1, 1)


def test_a_link_may_be_made_again() -> None:
    merged = tree(archive(member(b"a", data=b"1"), member(b"b", LINK, link=b"a"), member(b"b", LINK, link=b"a")))
    assert node(merged, b"a").nlink == 2


def test_duplicate_members_the_last_one_counts() -> None:
    merged = tree(
        archive(
            member(b"a", data=b"first"), member(b"a", data=b"2"), member(b"d/", DIR, mode=0o700), member(b"d/", DIR)
        )
    )
    assert node(merged, b"a").entry.size == 1
    assert node(merged, b"d").entry.mode == 0o755
    assert merged.root.nlink == 2 + 7


def test_a_type_change_inside_a_layer_drops_what_was_there() -> None:
    merged = tree(
        archive(member(b"a/", DIR), member(b"a/b/c"), member(b"a", data=b"file"), member(b"a/", DIR), member(b"a/d"))
    )
    assert paths(merged) == [b"a", b"a/d"]
    assert "no directory" in str(refusal(archive(member(b"a"), member(b"a/b"))))


def test_the_root_has_the_last_layers_metadata() -> None:
    merged = tree(
        archive(member(b"./", DIR, mode=0o700)), archive(member(b"./", DIR, mode=0o711, mtime=9)), archive(member(b"x"))
    )
    assert (merged.root.entry.mode, merged.root.entry.mtime, merged.root.layer) == (0o711, (9, 0), 1)
    bare = tree(archive(member(b"x")))
    assert (bare.root.entry.mode, bare.root.entry.mtime, bare.root.layer) == (0o755, (0, 0), SYNTHETIC)


def test_rule_m1_mount_points_are_added_where_nothing_is() -> None:
    merged = tree(archive(member(b"etc/hosts", data=b"::1 localhost\n", mode=0o600), member(b"tmp/", DIR, mode=0o755)))
    synthetic = [path for path, found in merged.walk() if found.layer == SYNTHETIC and path]
    assert synthetic == [path for path in MOUNT_POINTS if path not in (b"etc", b"etc/hosts", b"tmp")]
    assert node(merged, b"etc/hosts").entry.mode == 0o600
    assert node(merged, b"tmp").entry.mode == 0o755
    empty = merge(())
    assert [path for path, _ in empty.walk()] == [b"", *MOUNT_POINTS]
    assert node(empty, b"tmp").entry.mode == 0o1777
    assert (node(empty, b"etc/resolv.conf").entry.kind, node(empty, b"etc/resolv.conf").entry.size) == (Kind.FILE, 0)
    assert empty.root.nlink == 2 + 6


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (archive(member(b"etc/resolv.conf", SYMLINK, link=b"../run/resolv.conf")), "a symlink, expected a file"),
        (archive(member(b"etc/hosts/", DIR)), "a directory, expected a file"),
        (archive(member(b"proc", SYMLINK, link=b"/tmp")), "a symlink, expected a directory"),
        (archive(member(b"dev", data=b"x")), "a file, expected a directory"),
        (archive(member(b"etc", SYMLINK, link=b"usr/etc")), "a symlink, expected a directory"),
        (archive(member(b"run", b"6")), "a fifo, expected a directory"),
    ],
)
def test_rule_m1_mount_points_of_another_type_are_refused(layer: bytes, problem: str) -> None:
    error = refusal(layer)
    assert problem in str(error)
    assert "from the image" in error.repair


def test_changes_name_layer_kind_and_owner() -> None:
    top = archive(
        member(b"usr/bin/sh", data=b"shell"),  # the very same content
        member(b"srv/a/.wh.one"),
        member(b"srv/a/", DIR, mode=0o700),
        member(b"usr/", DIR, mode=0o711, uid=5, gid=6, mtime=MTIME),  # another time only
        member(b"new"),
    )
    assert changes(BASE, archive(member(b"bin/ls", data=b"x")), top) == [
        (b"usr/bin/ls", 1, "replaced", 0),
        (b"srv/a", 2, "metadata", 0),
        (b"srv/a/one", 2, "removed", 0),
        (b"usr/bin/sh", 2, "replaced", 0),
    ]
    _, (first, *_) = merge_with_changes(contents([BASE, archive(member(b"usr/bin/sh"))]))
    assert first == Change(path=b"usr/bin/sh", layer=1, kind="replaced", lower_layer=0)


def test_changes_of_a_removed_directory_name_every_path() -> None:
    assert changes(BASE, archive(member(b".wh.srv"))) == [
        (b"srv", 1, "removed", 0),
        (b"srv/a", 1, "removed", 0),
        (b"srv/a/one", 1, "removed", 0),
        (b"srv/a/two", 1, "removed", 0),
    ]
    assert changes(BASE, archive(member(b"srv/a", data=b"x"))) == [
        (b"srv/a", 1, "replaced", 0),
        (b"srv/a/one", 1, "removed", 0),
        (b"srv/a/two", 1, "removed", 0),
    ]


@pytest.mark.parametrize("first", [True, False])
def test_removed_and_written_again_is_replaced(first: bool) -> None:
    pair = [member(b".wh.srv"), member(b"srv/a/one", data=b"1")]
    assert changes(BASE, archive(*(pair if first else pair[::-1]))) == [
        (b"srv", 1, "replaced", 0),
        (b"srv/a", 1, "replaced", 0),
        (b"srv/a/one", 1, "replaced", 0),
        (b"srv/a/two", 1, "removed", 0),
    ]


def test_changes_of_a_file_written_and_dropped_again_in_one_layer() -> None:
    layer = archive(member(b"srv/a/one", data=b"x"), member(b"srv/a/", DIR, mode=0o700), member(b"srv/a", data=b"file"))
    assert changes(BASE, layer) == [
        (b"srv/a", 1, "replaced", 0),
        (b"srv/a/one", 1, "removed", 0),
        (b"srv/a/two", 1, "removed", 0),
    ]


def test_changes_through_links_are_those_of_the_name() -> None:
    assert changes(BASE, archive(member(b"usr/bin/ls", LINK, link=b"usr/bin/sh"))) == [
        (b"usr/bin/ls", 1, "replaced", 0)
    ]
    # What a layer adds and drops itself is no change to those below.
    layer = archive(
        member(b"l", LINK, link=b"usr/bin/sh"), member(b"l", data=b"x"), member(b"m/n"), member(b"m", data=b"x")
    )
    assert changes(BASE, layer) == []


def test_changes_are_attributed_to_the_layer_that_wrote_last() -> None:
    middle = archive(member(b"usr/bin/sh", data=b"2"), member(b"srv/", DIR, mode=0o700))
    assert changes(BASE, middle, archive(member(b"usr/bin/sh", data=b"3"), member(b"srv/", DIR))) == [
        (b"srv", 1, "metadata", 0),
        (b"usr/bin/sh", 1, "replaced", 0),
        (b"srv", 2, "metadata", 1),
        (b"usr/bin/sh", 2, "replaced", 1),
    ]


def test_mount_points_are_no_changes() -> None:
    assert (
        changes(archive(member(b"./", DIR)), archive(member(b"./", DIR), member(b"etc/hosts"), member(b"tmp/", DIR)))
        == []
    )


def test_the_merge_of_one_layer_twice_is_the_merge_of_it_once() -> None:
    once, twice = tree(BASE), tree(BASE, BASE)
    assert [(path, found.entry) for path, found in once.walk()] == [(path, found.entry) for path, found in twice.walk()]


def test_l4_opaque_markers_repeated_are_not_quadratic() -> None:
    # CVE-2026-95838: each marker swept all that the layer itself had put into the directory.
    below = archive(*[header(b"d/%d" % index) for index in range(20_000)])
    top = archive(*[header(b"d/n%d" % index) + header(b"d/.wh..wh..opq") for index in range(20_000)])
    layers = contents([below, top])
    start = time.process_time()
    merged = merge(layers)
    assert len(node(merged, b"d").children) == 20_000
    # Quadratic, it takes 400 million steps, a minute at least. Not a measure of speed.
    assert time.process_time() - start < 20


def test_l4_opaque_markers_in_each_other_are_not_quadratic() -> None:
    deep = b"/".join([b"d"] * 1000)
    markers = [member(deep[: 2 * depth - 1] + b"/.wh..wh..opq") for depth in range(1000, 0, -1)]
    top = archive(*[member(deep + b"/%d" % index) for index in range(3000)], *markers)
    merged = tree(archive(member(deep + b"/low")), top)
    assert len(node(merged, deep).children) == 3000


@pytest.mark.parametrize(
    ("layers", "limits", "problem"),
    [
        ([archive(member(b"a"), member(b"b"))] * 3, Limits(nodes=5), "members and implied directories"),
        ([archive(member(b"a/b/c/d/e/f"))], Limits(nodes=5), "members and implied directories"),
        ([archive(member(b"n" * 50 + b"/" + b"m" * 50 + b"/x"))], Limits(path_bytes=120), "bytes of paths"),
    ],
)
def test_l5_trees_larger_than_the_limits(layers: list[bytes], limits: Limits, problem: str) -> None:
    with pytest.raises(LayerLimitError, match=problem):
        merge(contents(layers), limits=limits)


def test_l5_symlinks_that_cost_more_than_they_weigh() -> None:
    # 40 symlinks, each through many directories and back, in front of every one of many members.
    deep = b"/".join([b"d"] * 700)
    chain = [
        member(b"l%d" % index, SYMLINK, link=deep + b"/" + b"../" * 700 + b"l%d" % (index + 1)) for index in range(39)
    ]
    change = member(b"x", SYMLINK, link=b"y") + member(b"x", data=b"")
    many = [header(b"l0/f") + change for _ in range(60)]
    layer = archive(member(deep + b"/", DIR), member(b"l39/", DIR), *chain, *many)
    assert "steps through symlinks" in str(refusal(layer))


_NAMES = st.sampled_from([b"a", b"b", b"c"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map(b"/".join)


@st.composite
def _members(draw: st.DrawFn) -> bytes:
    path = draw(_PATHS)
    shape = draw(st.sampled_from(["file", "directory", "symlink", "link", "whiteout", "opaque"]))
    if shape == "file":
        return member(path, data=draw(st.sampled_from([b"", b"1", b"22"])))
    if shape == "directory":
        return member(path + b"/", DIR, mode=draw(st.sampled_from([0o755, 0o700])))
    if shape == "symlink":
        return member(path, SYMLINK, link=draw(st.sampled_from([b"a", b"/b", b"../c", b"b/a"])))
    if shape == "link":
        target = draw(_PATHS)
        return member(path, LINK, link=target) if target != path else member(path)
    head, _, name = path.rpartition(b"/")
    return member((head + b"/" if head else b"") + (b".wh." + name if shape == "whiteout" else b".wh..wh..opq"))


@settings(max_examples=600, deadline=None)
@given(st.lists(st.lists(_members(), max_size=8), min_size=1, max_size=3))
def test_merged_trees_are_sound(layers: list[list[bytes]]) -> None:
    tars = [archive(*members) for members in layers]
    try:
        merged, found = merge_with_changes(contents(tars))
    except LayerError:
        return
    names: dict[Node, list[bytes]] = {}
    for path, item in merged.walk():
        names.setdefault(item, []).append(path)
    for item, own in names.items():
        assert item.entry.path in own
        if item.is_directory:
            assert len(own) == 1
            assert item.nlink == 2 + sum(child.is_directory for child in item.children.values())
        else:
            assert item.nlink == len(own)
            assert not item.children
    # What a change says of the last layer is borne out by the trees with and without it.
    last = len(tars) - 1
    before = {path for path, item in merge(contents(tars[:-1])).walk() if item.layer != SYNTHETIC}
    after = {path: item for path, item in merged.walk() if item.layer != SYNTHETIC}
    reported = {change.path: change for change in found if change.layer == last}
    assert {path for path, change in reported.items() if change.kind == "removed"} == before - after.keys() - {b""}
    for path, change in reported.items():
        assert path in before
        assert change.lower_layer < last
        if change.kind == "replaced":
            assert path in after
    for path in before & after.keys():
        if after[path].layer == last and not after[path].is_directory:
            assert reported[path].kind == "replaced"
