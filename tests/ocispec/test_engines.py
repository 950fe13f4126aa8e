"""Ordinary images pass: the layers that tools in use make of one torture tree are taken, and equal podman's.

Each image is made by a real tool, read and merged by us, its root index mounted by the kernel, and then
pulled and mounted by podman. What may differ is listed in `ALLOWED`, each with its reason.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from ocispec.config import parse_config
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.erofs import root_index
from ocispec.errors import LayerError
from ocispec.layer import LayerContent, read_stored_layer
from ocispec.merge import merge
from ocispec.tree import SYNTHETIC, Tree
from tests.support import torture
from tests.support.debian import debian_layer
from tests.support.kernel import disk, mounted, need_erofs
from tests.support.layers import archive, content, member, oci_layout
from tests.support.podman import mounted_by_podman
from tests.support.tools import need, need_root
from tests.support.view import View, differences, view_of_folder, view_of_tree

pytestmark = [pytest.mark.root, pytest.mark.slow]

CHANGES = """
set -e
cd "${1:-/}"
rm etc/owner-0
rm -r srv/deep
mkdir srv/deep
echo new > srv/deep/new
mv links/one links/uno
ln bin/busybox bin/linked
chmod 711 var
rm -r var/empty
echo file > var/empty
rm lib
mkdir lib
echo lib > lib/file
rm etc/owner-1
mkdir etc/owner-1
ln -s /tmp etc/owner-1/link
rm etc/mode-0
echo again > etc/mode-0
mkdir -p new/of/all
"""
"""What a second layer is made from: removals, a directory made anew, types changed, links to lower files."""


LOWER_LINKS: dict[bytes, tuple[str, ...]] = dict.fromkeys((b"links/two", b"links/zz/three"), ("nlink",))
"""Of three names one is removed: overlayfs still shows the lower file's three links."""


class Image:
    """An OCI layout on disk, read by us."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = json.loads((folder / "index.json").read_text())
        manifest = json.loads(self._blob(index["manifests"][0]["digest"]))
        config = parse_config(self._blob(manifest["config"]["digest"]))
        self.tars: list[BinaryIO] = []
        self.layers: list[LayerContent] = []
        for number, (found, diff_id) in enumerate(zip(manifest["layers"], config.diff_ids, strict=True)):
            descriptor = Descriptor.from_json(found, what="layer")
            tar = (folder / f"tar-{number}").open("wb+")
            stored = io.BytesIO(self._blob(str(descriptor.digest)))
            self.layers.append(read_stored_layer(stored, descriptor, diff_id, copy_to=tar))
            tar.flush()
            self.tars.append(tar)
        self.tree: Tree = merge(self.layers)

    def _blob(self, digest: str) -> bytes:
        return (self.folder / "blobs" / digest.replace(":", "/")).read_bytes()

    def view(self) -> View:
        """The kernel's view of the root index, checked against the tree."""
        index = self.folder / "index.erofs"
        index.write_bytes(root_index(self.tree, self.layers))
        with mounted(index, [self.folder / f"tar-{number}" for number in range(len(self.tars))]) as root:
            view = view_of_folder(root)
        assert differences(view, view_of_tree(self.tree, self.tars)) == []
        return view

    def close(self) -> None:
        for tar in self.tars:
            tar.close()


def compare(image: Image, driver: str, *, without: Mapping[bytes, tuple[str, ...]] | None = None) -> None:
    """Compare our mounted index with podman's mount; `without` are attributes of single paths not to look at."""
    ours = image.view()
    store = image.folder / f"store-{driver}"
    try:
        theirs = mounted_by_podman(f"oci:{image.folder}:t", store, driver)
    finally:
        shutil.rmtree(store)
    for path, node in image.tree.walk():
        if node.layer == SYNTHETIC and path:
            # Rule M1 adds what the runtime mounts over.
            theirs.setdefault(path, ours[path])
    allowed: dict[bytes, tuple[str, ...]] = {
        # podman sets the time of the root when it unpacks into it, and its overlay driver keeps a mode of its own.
        b"": ("mtime", "mode") if driver == "overlay" else ("mtime",),
        **(without or {}),
    }
    left = [
        line
        for line in differences(ours, theirs)
        if not any(line.startswith(f"{path!r}: {name}: ") for path, names in allowed.items() for name in names)
        # overlayfs shows one link for a directory that it merges.
        and not (driver == "overlay" and ": nlink: " in line and line.endswith(" != 1"))
    ]
    assert left == []


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_root()
    need_erofs()
    return disk([tmp_path_factory.mktemp("engines"), Path("/var/tmp"), Path.cwd()])


@pytest.fixture(scope="module")
def tree(top: Path) -> Path:
    return torture.make(top / "tree")


@pytest.fixture
def folder(top: Path) -> Iterator[Path]:
    path = top / f"image-{time.monotonic_ns()}"
    path.mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Image]:
    image = Image(folder)
    try:
        yield image
    finally:
        image.close()


def run(*command: str | Path, private: bool = False) -> str:
    """Run a tool and return what it prints; `private` gives it a mount namespace of its own."""
    words = [str(word) for word in command]
    need(words[0])
    if private:
        words = ["unshare", "--mount", "--propagation", "private", *words]
    done = subprocess.run(
        words,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{words}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["tar", "-cf"],
        ["tar", "--format=gnu", "--sparse-version=1.0", "-cf"],
        ["tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--selinux", "-cf"],
        ["tar", "--format=posix", "--sort=name", "--numeric-owner", "--xattrs", "-cf"],
        ["bsdtar", "-cf"],
        ["bsdtar", "--format=gnutar", "-cf"],
        ["bsdtar", "--format=pax", "-cf"],
    ],
)
def test_archivers(tree: Path, folder: Path, command: list[str]) -> None:
    need(command[0])
    done = subprocess.run([*command, str(folder / "x.tar"), "-C", str(tree), "."], capture_output=True, check=False)
    assert (folder / "x.tar").stat().st_size > 4_000_000, done.stderr
    oci_layout(folder, [(folder / "x.tar").read_bytes()])
    with opened(folder) as image:
        assert len(list(image.tree.walk())) >= 150
        compare(image, "overlay")


@pytest.mark.parametrize(
    ("command", "refused"),
    [
        (["bsdtar", "-cf"], True),
        (["bsdtar", "--no-read-sparse", "-cf"], False),
        (["tar", "--sparse", "-cf"], True),
        (["tar", "--sparse", "--format=pax", "-cf"], True),
        (["tar", "-cf"], False),
    ],
)
def test_a_file_with_a_hole(top: Path, command: list[str], refused: bool) -> None:
    # The image specification: sparse files should not be used. The refusal says what to write instead.
    hole = top / "hole"
    hole.mkdir(exist_ok=True)
    with (hole / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"middle")
    run(*command, top / "hole.tar", "-C", hole, ".")
    tar = (top / "hole.tar").read_bytes()
    if not refused:
        assert [found.path for found in content(tar).members] == [b"", b"sparse"]
        return
    with pytest.raises(LayerError, match="a sparse member") as caught:
        content(tar)
    assert caught.value.member.endswith((b"sparse", b"sparse/"))
    assert "bsdtar --no-read-sparse, or tar without --sparse" in caught.value.repair


def test_umoci(tree: Path, folder: Path) -> None:
    run("umoci", "init", "--layout", folder / "layout")
    name = f"{folder / 'layout'}:t"
    run("umoci", "new", "--image", name)
    run("umoci", "unpack", "--image", name, folder / "bundle")
    run("cp", "-a", f"{tree}/.", folder / "bundle/rootfs")
    run("umoci", "repack", "--image", name, "--refresh-bundle", folder / "bundle")
    run("sh", "-c", CHANGES, "sh", folder / "bundle/rootfs")
    run("umoci", "repack", "--image", name, folder / "bundle")
    with opened(folder / "layout") as image:
        assert len(image.layers) == 2
        # podman's vfs driver copies the layer below without ACLs, and links of symlinks as two.
        lost: dict[bytes, tuple[str, ...]] = {b"etc/acl": ("xattrs",)}
        lost |= dict.fromkeys((b"links/long", b"links/long-again"), ("nlink", "same"))
        compare(image, "vfs", without=lost)


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_buildah(tree: Path, folder: Path, driver: str) -> None:
    buildah: list[str | Path] = [
        "buildah",
        "--root",
        folder / "root",
        "--runroot",
        folder / "run",
        "--storage-driver",
        driver,
    ]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    first = f"oci:{folder / 'first'}:t"
    container = run(*buildah, "from", *limits, "scratch", private=True).strip()
    run(*buildah, "copy", container, tree, "/", private=True)
    image = run(*buildah, "commit", "--quiet", container, private=True).strip()
    again = run(*buildah, "from", *limits, image, private=True).strip()
    run(*buildah, "run", "--isolation", "chroot", again, "--", "/bin/sh", "-c", CHANGES, private=True)
    run(*buildah, "commit", "--quiet", again, first, private=True)
    with opened(folder / "first") as found:
        assert len(found.layers) == 2
        # buildah names no root; then podman gives it a mode of its own.
        compare(found, driver, without={b"": ("mtime", "mode"), **LOWER_LINKS})


@contextlib.contextmanager
def docker_daemon(folder: Path) -> Iterator[Callable[..., str]]:
    """A dockerd of our own, with its own store, socket and mount namespace; yields `docker` as a function."""
    group = f"pratique-test-docker-{os.getpid()}"
    socket = f"unix://{folder}/docker.sock"
    log = (folder / "dockerd.log").open("wb")
    daemon = subprocess.Popen(
        [
            "unshare", "--mount", "--propagation", "private", need("dockerd"),
            "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"),
            "--host", socket, "--iptables=false", "--ip6tables=false", "--bridge=none",
            "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{group}",
        ],
        stdout=log, stderr=log,
    )  # fmt: skip

    def docker(*words: str | Path) -> str:
        return run("docker", "--host", socket, *words)

    try:
        deadline = time.monotonic() + 60
        while not (folder / "docker.sock").exists():
            assert daemon.poll() is None, (folder / "dockerd.log").read_text()[-4000:]
            assert time.monotonic() < deadline, (folder / "dockerd.log").read_text()[-4000:]
            time.sleep(0.1)
        yield docker
    finally:
        daemon.terminate()
        daemon.wait(60)
        log.close()
        for pattern in (group, f"*/{group}"):
            for path in Path("/sys/fs/cgroup").glob(pattern):
                path.rmdir()


def test_docker(tree: Path, top: Path, folder: Path) -> None:
    run("tar", "--format=pax", "--xattrs", "--xattrs-include=*", "-cf", folder / "tree.tar", "-C", tree, ".")
    # A short path: a socket's has 107 bytes at most.
    home = Path(tempfile.mkdtemp(prefix="pratique-", dir=disk([Path("/tmp"), Path("/var/tmp")])))
    (folder / "context").mkdir()
    shutil.move(folder / "tree.tar", folder / "context/tree.tar")
    (folder / "context/Dockerfile").write_text("FROM scratch\nADD tree.tar /\n")
    try:
        with docker_daemon(home) as docker:
            docker("build", "--quiet", "--tag", "torture:t", folder / "context")
            docker("run", "--name", "changed", "--network", "none", "torture:t", "/bin/sh", "-c", CHANGES)
            docker("commit", "changed", "changed:t")
            docker("import", folder / "context/tree.tar", "imported:t")
            for name in ("changed", "imported"):
                docker("save", "--output", folder / f"{name}.tar", f"{name}:t")
    finally:
        shutil.rmtree(home)
    for name in ("changed", "imported"):
        run("skopeo", "copy", f"docker-archive:{folder / name}.tar", f"oci:{folder / name}:t")
        with opened(folder / name) as image:
            assert len(image.layers) == (2 if name == "changed" else 1)
            compare(image, "overlay", without=LOWER_LINKS)


DIRECTORY, LINK, SYMLINK = b"5", b"1", b"2"
EVERYTHING = [member(name, DIRECTORY) for name in (b"./", b"proc/", b"sys/", b"dev/", b"run/", b"etc/", b"tmp/")]
BASE = archive(
    *EVERYTHING,
    member(b"bin", SYMLINK, link=b"usr/bin"),
    member(b"usr/", DIRECTORY, mode=0o711, uid=5),
    member(b"usr/bin/", DIRECTORY, mode=0o750),
    member(b"usr/bin/sh", data=b"shell"),
    member(b"usr/bin/ls", data=b"list"),
    member(b"usr/bin/dir", LINK, link=b"usr/bin/ls"),
    member(b"srv/", DIRECTORY),
    member(b"srv/a/", DIRECTORY),
    member(b"srv/a/one", data=b"1"),
    member(b"srv/a/two", data=b"2"),
)

PARENTS = [
    member(b"usr/", DIRECTORY, mode=0o711, uid=5),
    member(b"usr/bin/", DIRECTORY, mode=0o750),
    member(b"srv/", DIRECTORY),
    member(b"srv/a/", DIRECTORY),
]
BOTH, VFS = ("overlay", "vfs"), ("vfs",)


@pytest.mark.parametrize(
    ("name", "layer", "drivers"),
    [
        ("whiteouts", [*PARENTS, member(b"srv/a/.wh.one"), member(b"usr/bin/.wh.sh")], BOTH),
        ("a whole directory", [member(b".wh.srv")], BOTH),
        ("opaque", [*PARENTS, member(b"srv/.wh..wh..opq"), member(b"srv/b", data=b"b")], BOTH),
        ("opaque last", [*PARENTS[:3], member(b"srv/b", data=b"b"), member(b"srv/.wh..wh..opq")], BOTH),
        ("type change", [*PARENTS[:3], member(b"srv/a", data=b"file"), member(b"usr/bin/sh/", DIRECTORY)], BOTH),
        ("directories merge", [*PARENTS[:3], member(b"srv/a/", DIRECTORY, mode=0o700, uid=9)], BOTH),
        ("absolute names", [*PARENTS, member(b"/srv//abs", data=b"1"), member(b"./srv/./dot")], BOTH),
        ("whiteout and its entry", [*PARENTS, member(b"srv/a/.wh.one"), member(b"srv/a/one", data=b"new")], BOTH),
        (
            "whiteout and its directory",
            [*PARENTS[:3], member(b"srv/.wh.a"), member(b"srv/a/", DIRECTORY), member(b"srv/a/x")],
            VFS,
        ),
        ("implied parents", [member(b"usr/bin/new", data=b"n")], VFS),
        ("a removed parent implied", [member(b".wh.srv"), member(b"srv/new", data=b"n")], VFS),
        ("symlinked parent", [member(b"bin/new", data=b"n")], VFS),
        ("whiteout through a symlink", [member(b"bin/.wh.sh")], VFS),
        ("link into a lower layer", [member(b"sh", LINK, link=b"usr/bin/sh")], VFS),
        ("link across a whiteout", [member(b"sh", LINK, link=b"usr/bin/sh"), member(b"usr/bin/.wh.sh")], VFS),
        ("one name of a link", [member(b"usr/bin/ls", data=b"new")], VFS),
    ],
)
def test_merging_as_podman(folder: Path, name: str, layer: list[bytes], drivers: tuple[str, ...]) -> None:
    # podman's overlay driver unpacks a layer without those below it: it refuses duplicates and links into lower
    # layers, and gives implied parents a new owner. Its vfs driver applies layers onto each other, as we do.
    oci_layout(folder, [BASE, archive(*layer)])
    # Whatever is made in a directory sets its time there.
    touched = dict.fromkeys((b"srv", b"srv/a", b"usr", b"usr/bin"), ("mtime",))
    with opened(folder) as image:
        for driver in drivers:
            compare(image, driver, without=touched)
    assert name


def test_a_layer_alone_equals_mkfs_erofs(tree: Path, folder: Path) -> None:
    need("mkfs.erofs")
    # mkfs.erofs 1.8.6 reads the fraction of a pax time as a whole number: .5 s is 5 ns to it. GNU tar drops trailing
    # zeros, so one time in ten would differ: the comparison is made with whole seconds.
    whole = ("--format=pax", "--pax-option=delete=mtime,delete=atime,delete=ctime", "--xattrs", "--xattrs-include=*")
    run("tar", *whole, "-cf", folder / "x.tar", "-C", tree, ".")
    tar = (folder / "x.tar").read_bytes()
    oci_layout(folder, [tar])
    run("mkfs.erofs", "--tar=i", folder / "mkfs.erofs", folder / "x.tar")
    with opened(folder) as image:
        ours = image.view()
        with mounted(folder / "mkfs.erofs", [folder / "x.tar"]) as root:
            theirs = view_of_folder(root)
        for path, node in image.tree.walk():
            if node.layer == SYNTHETIC:
                del ours[path]
        # Directories of ours have the mount points among their links.
        left = [
            line for line in differences(ours, theirs) if not line.startswith((f"{b''!r}: nlink", f"{b'etc'!r}: nlink"))
        ]
    assert left == []
    assert Digest.of(tar) == image.layers[0].diff_id


def test_mmdebstrap(folder: Path) -> None:
    tar = debian_layer()
    oci_layout(folder, [tar.read_bytes()])
    with opened(folder) as image:
        assert len(image.layers[0].members) > 4000
        compare(image, "overlay")
