"""Look-ups in a merged tree, as a process inside it would make them."""

from __future__ import annotations

import pytest

from ocispec.merge import merge
from ocispec.tree import Tree
from tests.support.layers import archive, contents, member

DIR, SYMLINK = b"5", b"2"

LAYER = archive(
    member(b"bin", SYMLINK, link=b"usr/bin"),
    member(b"usr/bin/python3.13", data=b"#!"),
    member(b"usr/bin/python3", SYMLINK, link=b"python3.13"),
    member(b"usr/bin/python", SYMLINK, link=b"/etc/alternatives/python"),
    member(b"etc/alternatives/python", SYMLINK, link=b"../../bin/./python3"),
    member(b"up", SYMLINK, link=b"../../../../usr/.."),
    member(b"nowhere", SYMLINK, link=b"usr/none"),
    member(b"loop", SYMLINK, link=b"loop"),
    member(b"through", SYMLINK, link=b"usr/bin/python3.13/x"),
    member(b"slash", SYMLINK, link=b"usr/bin/"),
    member(b"l0", SYMLINK, link=b"usr"),
    *[member(b"l%d" % index, SYMLINK, link=b"l%d" % (index - 1)) for index in range(1, 41)],
)


@pytest.fixture(scope="module")
def tree() -> Tree:
    return merge(contents([LAYER]))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"", b""),
        (b"/", b""),
        (b"usr", b"usr"),
        (b"/usr//bin/.", b"usr/bin"),
        (b"bin/python", b"usr/bin/python3.13"),
        (b"bin/python3", b"usr/bin/python3.13"),
        (b"etc/../usr", b"usr"),
        (b"up", b""),
        (b"up/../..", b""),
        (b"slash", b"usr/bin"),
        (b"slash/python3", b"usr/bin/python3.13"),
        (b"l39", b"usr"),
        (b"proc", b"proc"),
    ],
)
def test_resolve_follows_symlinks_inside_the_tree(tree: Tree, path: bytes, found: bytes) -> None:
    resolved = tree.resolve(path)
    assert resolved is not None
    assert resolved[0] == found
    assert resolved[1] is tree.get(found)


@pytest.mark.parametrize(
    "path", [b"none", b"nowhere", b"loop", b"through", b"usr/bin/python3.13/x", b"bin/python/..", b"l40", b"etc/hosts/"]
)
def test_resolve_finds_nothing(tree: Tree, path: bytes) -> None:
    assert tree.resolve(path) is None


def test_a_path_of_too_many_steps_is_not_followed() -> None:
    deep = b"d/" * 500
    links = [member(b"l%d" % index, SYMLINK, link=deep + b"../" * 500 + b"l%d" % (index + 1)) for index in range(39)]
    tree = merge(contents([archive(member(deep, DIR), member(b"l39/", DIR), *links)]))
    assert tree.resolve(b"l38") is not None
    assert tree.resolve(b"l0") is None


def test_get_follows_nothing(tree: Tree) -> None:
    assert tree.get(b"bin/python3") is None
    assert tree.get(b"") is tree.root
    found = tree.get(b"bin")
    assert found is not None
    assert found.entry.target == b"usr/bin"
    assert repr(found) == "Node(b'bin', SYMLINK, layer=0)"
    assert tree.get(b"usr/bin/python3.13/x") is None


def test_walk_is_sorted_and_has_parents_first() -> None:
    names = [b"b", b"a-b", b"a/z", b"a/b/c", b"\xff", b"!"]
    tree = merge(contents([archive(*[member(name) for name in names])]))
    found = [path for path, node in tree.walk() if node.layer == 0]
    assert found == [b"!", b"a", b"a/b", b"a/b/c", b"a/z", b"a-b", b"b", b"\xff"]
