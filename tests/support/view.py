"""A file tree as plain data, seen by the kernel or computed from a Tree, to be compared.

`python -m tests.support.view FOLDER` prints what the kernel shows, for use inside another mount namespace.
"""

from __future__ import annotations

import ast
import hashlib
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from ocispec.entry import Kind
from ocispec.tree import Node, Tree

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that a program can see of one file; `same` is the first path, by its bytes, of the same inode."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: tuple[int, int]
    nlink: int
    size: int = 0
    rdev: tuple[int, int] = (0, 0)
    target: bytes = b""
    sha256: str = ""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    same: bytes = b""


View = dict[bytes, Seen]


def view_of_folder(root: int | str) -> View:
    """What the kernel shows below a folder, given by its descriptor or path."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY) if isinstance(root, str) else os.dup(root)
    found: View = {}
    first: dict[tuple[int, int], bytes] = {}
    try:
        _visit(top, b".", b"", found, first)
    finally:
        os.close(top)
    return _name_inodes(found)


def view_of_tree(tree: Tree, tars: Sequence[BinaryIO]) -> View:
    """What the kernel should show of a tree whose layers' data lie in `tars`."""
    found: View = {}
    digests: dict[Node, str] = {}
    for path, node in tree.walk():
        entry = node.entry
        if entry.kind is Kind.FILE and node not in digests:
            digests[node] = hashlib.sha256(_data(node, tars)).hexdigest()
        found[path] = Seen(
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime=entry.mtime,
            nlink=node.nlink,
            size=entry.size,
            rdev=entry.rdev,
            target=entry.target,
            sha256=digests.get(node, ""),
            xattrs=entry.xattrs,
            same=b"" if node.is_directory else str(id(node)).encode(),
        )
    return _name_inodes(found)


def differences(got: View, want: View, *, without: Sequence[str] = ()) -> list[str]:
    """Each path and attribute in which two views differ; attributes in `without` are not compared."""
    lines = [f"{path!r}: only in the first" for path in sorted(got.keys() - want.keys())]
    lines += [f"{path!r}: only in the second" for path in sorted(want.keys() - got.keys())]
    for path in sorted(got.keys() & want.keys()):
        for name in Seen.__slots__:
            one, other = getattr(got[path], name), getattr(want[path], name)
            if name not in without and one != other:
                lines.append(f"{path!r}: {name}: {one!r} != {other!r}")
    return lines


def _data(node: Node, tars: Sequence[BinaryIO]) -> bytes:
    if not node.entry.size:
        return b""
    tar = tars[node.layer]
    tar.seek(node.entry.offset)
    return tar.read(node.entry.size)


def _visit(directory: int, name: bytes, path: bytes, found: View, first: dict[tuple[int, int], bytes]) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    by_path = b"/proc/self/fd/%d/%s" % (directory, name)
    digest = ""
    if kind is Kind.FILE:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    inode = (status.st_dev, status.st_ino)
    found[path] = Seen(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=divmod(status.st_mtime_ns, 10**9),
        nlink=status.st_nlink,
        size=status.st_size if kind is Kind.FILE else 0,
        rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        target=os.readlink(name, dir_fd=directory) if kind is Kind.SYMLINK else b"",
        sha256=digest,
        xattrs=tuple(
            sorted(
                (os.fsencode(key), os.getxattr(by_path, key, follow_symlinks=False))
                for key in os.listxattr(by_path, follow_symlinks=False)
            )
        ),
        same=b"" if kind is Kind.DIRECTORY else b"%d:%d" % inode,
    )
    if kind is not Kind.DIRECTORY:
        return
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        for child in sorted(os.fsencode(entry) for entry in os.listdir(inner)):  # noqa: PTH208  # by descriptor
            _visit(inner, child, path + b"/" + child if path else child, found, first)
    finally:
        os.close(inner)


def _name_inodes(found: View) -> View:
    first: dict[bytes, bytes] = {}
    for path in sorted(found):
        if found[path].same:
            first.setdefault(found[path].same, path)
    return {
        path: Seen(
            **{name: getattr(seen, name) for name in Seen.__slots__ if name != "same"}, same=first.get(seen.same, b"")
        )
        for path, seen in found.items()
    }


def to_text(view: View) -> str:
    """A view as text, for another process."""
    return repr({path: tuple(_plain(getattr(seen, name)) for name in Seen.__slots__) for path, seen in view.items()})


def _plain(value: object) -> object:
    return int(value) if isinstance(value, Kind) else value


def from_text(text: str) -> View:
    """The view that `to_text` wrote."""
    rows: dict[bytes, tuple[object, ...]] = ast.literal_eval(text)
    return {path: _seen(dict(zip(Seen.__slots__, row, strict=True))) for path, row in rows.items()}


def _seen(values: dict[str, Any]) -> Seen:
    return Seen(**{**values, "kind": Kind(values["kind"])})


if __name__ == "__main__":
    sys.stdout.write(to_text(view_of_folder(sys.argv[1])))
