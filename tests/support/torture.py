"""A tree with everything that file systems and archivers find hard, to be packed by every tool.

All of it is legal on Linux, and a real image may hold any of it.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from tests.support.tools import need

ACL = (
    b"\2\0\0\0"
    b"\1\0\7\0\xff\xff\xff\xff"
    b"\2\0\5\0\x0a\0\0\0"
    b"\4\0\5\0\xff\xff\xff\xff"
    b"\x10\0\5\0\xff\xff\xff\xff"
    b"\x20\0\4\0\xff\xff\xff\xff"
)
"""A POSIX access ACL as an attribute: owner rwx, user 10 r-x, group r-x, mask r-x, others r--."""

CAPABILITY = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
"""cap_net_bind_service, effective (linux/capability.h, vfs_cap_data)."""


def make(top: Path, *, sparse: bool = False) -> Path:
    """Make the tree in the new folder `top`, as root; with `sparse`, one file has a hole."""
    top.mkdir(mode=0o755)
    for name in (
        "bin",
        "etc",
        "usr/lib",
        "var/empty",
        "srv/deep",
        "names",
        "links",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
    ):
        (top / name).mkdir(parents=True)
    shutil.copy(need("busybox"), top / "bin/busybox")
    for applet in ("sh", "rm", "mv", "ln", "mkdir", "touch", "chmod", "cat"):
        (top / "bin" / applet).symlink_to("busybox")
    (top / "tmp").chmod(0o1777)
    (top / "lib").symlink_to("usr/lib")
    _files(top)
    _names(top / "names")
    _links(top / "links")
    os.mknod(top / "dev/zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod(top / "dev/disk", 0o600 | stat.S_IFBLK, os.makedev(259, 70_000))
    os.mkfifo(top / "run/pipe", 0o600)
    if sparse:
        with (top / "srv/sparse").open("wb") as file:
            file.write(b"begin")
            file.truncate(1 << 20)
            file.seek(1 << 19)
            file.write(b"middle")
    for folder, _, names in os.walk(top, topdown=False):
        for number, name in enumerate(sorted(names)):
            os.utime(Path(folder, name), ns=(0, 1_600_000_000_123_456_789 + number * 10**9), follow_symlinks=False)
        os.utime(folder, ns=(0, 1_500_000_000_000_000_001))
    return top


def _files(top: Path) -> None:
    for length in (0, 1, 511, 512, 513, 4096, 100_000):
        (top / f"srv/{length}").write_bytes(bytes(index % 251 for index in range(length)))
    for mode in (0o000, 0o4755, 0o2755, 0o1644, 0o777):
        path = top / f"etc/mode-{mode:o}"
        path.write_text("x")
        path.chmod(mode)
    for number, (uid, gid) in enumerate([(1000, 1000), (0, 65534), (2**31, 2**31), (4_000_000_000, 4_000_000_001)]):
        path = top / f"etc/owner-{number}"
        path.write_text("x")
        os.chown(path, uid, gid)
    (top / "var/private").mkdir(mode=0o700)
    os.chown(top / "var/private", 33, 33)
    (top / "etc/x.wh.y").write_text("no whiteout")
    deep = top / "srv/deep"
    for _ in range(60):
        deep /= "directory"
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep down")
    attributes = top / "etc/attributes"
    attributes.write_text("x")
    os.setxattr(attributes, "user.comment", b"\0binary\xff=\n")
    os.setxattr(attributes, "user.empty", b"")
    os.setxattr(top / "var", "user.directory", b"1")
    capable = top / "bin/capable"
    shutil.copy(top / "bin/busybox", capable)
    os.setxattr(capable, "security.capability", CAPABILITY)
    acl = top / "etc/acl"
    acl.write_text("x")
    acl.chmod(0o754)
    os.setxattr(acl, "system.posix_acl_access", ACL)


def _names(folder: Path) -> None:
    plain = [
        "with space",
        "new\nline",
        "tab\tback\\slash",
        "naïve-日本語",
        "-dash",
        "'quote\"",
        "*",
        "n" * 255,
        "%41",
        "a=b",
    ]
    for name in plain:
        (folder / name).write_text(name)
    Path(os.fsdecode(bytes(folder) + b"/latin-\xe9\xff")).write_text("not UTF-8")
    for length in (98, 99, 100, 101, 154, 155, 156):
        (folder / ("l" * length)).mkdir()
        (folder / ("l" * length) / "file").write_text("x")


def _links(folder: Path) -> None:
    (folder / "one").write_text("three names")
    (folder / "two").hardlink_to(folder / "one")
    (folder / "zz").mkdir()
    (folder / "zz/three").hardlink_to(folder / "one")
    (folder / "absolute").symlink_to("/etc/attributes")
    (folder / "up").symlink_to("../../../../etc")
    (folder / "dangling").symlink_to("no/such/place")
    (folder / "itself").symlink_to("itself")
    (folder / "long").symlink_to("t" * 300)
    (folder / "directory").symlink_to("zz/")
    os.link(folder / "long", folder / "long-again", follow_symlinks=False)
    os.chown(folder / "dangling", 12, 13, follow_symlinks=False)
