"""Containers for tests: images with a static busybox in them, started for real, and nothing left of them after.

    code, out, err = box.sh("id -u; hostname", hostname="web")

A box has a state folder and a parent cgroup of its own. Each test that has one ends with the independent look
of tests/support/leftovers.py: no mount, cgroup, namespace, loop device, process or descriptor more than before.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from ocispec.erofs import root_index
from ocispec.layer import read_layer
from ocispec.merge import merge
from runtime.model import ContainerId, Process, Root, StartRequest
from tests.runtime.starter import Image
from tests.support import leftovers
from tests.support.images import Content, Dir, File, Link, tar
from tests.support.tools import need

REPOSITORY = Path(__file__).parent.parent.parent
PATH = "PATH=/bin"
_NUMBER = itertools.count()
_PR_SET_CHILD_SUBREAPER = 36


class Result(NamedTuple):
    """How a start ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def busybox_files() -> dict[str, Content]:
    """A small userland: busybox under every name that it answers to, and the mount points of rule M1."""
    content = Path(need("busybox")).read_bytes()
    names = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    files: dict[str, Content] = {
        f"{name}/": Dir() for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "var", "srv")
    }
    files |= {"tmp/": Dir(mode=0o1777), "bin/busybox": File(content, mode=0o755)}
    files |= {f"bin/{name}": Link("busybox") for name in names if name != "busybox"}
    files |= {f"etc/{name}": "" for name in ("hosts", "hostname", "resolv.conf")}
    return files | {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n", "etc/group": ""}


def build(folder: Path, layers: Sequence[Mapping[str, Content]]) -> Image:
    """An image as a host has it after a pull: the tars, and the root index that ocispec writes of them."""
    tars = [tar(layer) for layer in layers]
    contents = [read_layer(BytesIO(data), what=f"layer {number}") for number, data in enumerate(tars)]
    return _write(folder, root_index(merge(contents), contents), tars)


def build_hostile(folder: Path, files: Mapping[str, Content]) -> Image:
    """An image that our own merge would refuse: its index is written by mkfs.erofs."""
    number = next(_NUMBER)
    source, index = folder / f"hostile-{number}.tar", folder / f"hostile-{number}.erofs"
    source.write_bytes(tar({"./": Dir(), **files}))
    tool = need("mkfs.erofs")
    subprocess.run([tool, "--quiet", "--tar=i", str(index), str(source)], check=True, capture_output=True)
    return Image(index, (source,))


def _write(folder: Path, index: bytes, tars: Sequence[bytes]) -> Image:
    number = next(_NUMBER)
    paths = tuple(folder / f"image-{number}-{position}" for position in range(len(tars) + 1))
    for path, data in zip(paths, (index, *tars), strict=True):
        path.write_bytes(data)
    return Image(paths[0], paths[1:])


@dataclass(slots=True)
class Box:
    """Where containers of one test live."""

    folder: Path
    image: Image
    cgroup_parent: str = field(default_factory=lambda: f"pratique-test-{os.getpid()}-{next(_NUMBER)}")
    before: dict[str, list[str]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def __enter__(self) -> Box:
        # Orphans of a killed launcher become our children: they are found, and reaped.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.before = self.look()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.left() == []

    def look(self) -> dict[str, list[str]]:
        """What there is now."""
        reap()
        return leftovers.take(os.getpid(), "pratique-test-*")

    def ours(self, line: str) -> bool:
        """False for what is others': whatever we mount lies below this box's folder, and we have no database."""
        if " postgres " in line:
            return False
        return not line.startswith(("mount ", "loop device ")) or str(self.folder) in line or self.cgroup_parent in line

    def left(self, within: float = 5.0) -> list[str]:
        """What there is now and was not at the beginning."""
        left: list[str] = []
        for _ in range(int(within / 0.2)):
            reap()
            found = leftovers.settle(self.before, within=0.2, under=os.getpid(), cgroups=f"{self.cgroup_parent}*")
            left = [line for line in found if self.ours(line)]
            if not left:
                break
        return left

    def request(
        self, *argv: str, name: str = "box", process: Mapping[str, Any] | None = None, **more: Any
    ) -> StartRequest:
        """A start request; `process` and `root` hold members of those two."""
        members = {"env": (PATH,), **(process or {})}
        root = Root(index_fd=-1, **more.pop("root", {}))
        return StartRequest(name=ContainerId(name), root=root, process=Process(argv=argv, **members), **more)

    def command(self, request: StartRequest, image: Image | None = None, **options: str) -> list[str]:
        """The command that starts it; `options` are source text of further arguments of the starter."""
        arguments = {"state_dir": repr(self.state), "cgroup_parent": repr(self.cgroup_parent), **options}
        text = ", ".join(f"{key}={value}" for key, value in arguments.items())
        source = f"from tests.runtime.starter import *; main({image or self.image!r}, {request!r}, {text})"
        return [sys.executable, "-c", source]

    def start(self, request: StartRequest, image: Image | None = None, **options: str) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        pipe = subprocess.PIPE
        command = self.command(request, image, **options)
        return subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(
        self,
        *argv: str,
        image: Image | None = None,
        input: bytes = b"",  # noqa: A002  # subprocess's own word
        options: Mapping[str, str] | None = None,
        **members: Any,
    ) -> Result:
        """Start it in the foreground and wait."""
        with self.start(self.request(*argv, **members), image, **(options or {})) as process:
            out, err = process.communicate(input, timeout=60)
        return Result(process.returncode, os.fsdecode(out), os.fsdecode(err))

    def sh(self, script: str, **more: Any) -> Result:
        """Run a shell script in the container."""
        return self.run("sh", "-c", script, **more)


def reap() -> None:
    """Reap orphans that have ended: as a subreaper we are their parent now. Tests wait for their own first."""
    for pid in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
        with suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                os.waitpid(pid, os.WNOHANG)
