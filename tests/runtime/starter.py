"""Runs one start request as the command line would: in a process of its own, errors as a line and an exit code.

    python -c 'from tests.runtime.starter import *; main(Image(...), StartRequest(...), detach=False, ...)'

Requests are passed as their own repr, so a test can kill this process, or read its descriptors.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PosixPath

from runtime.errors import ContainerError
from runtime.launch import run
from runtime.linux.constants import PR_SET_PDEATHSIG
from runtime.linux.syscalls import prctl
from runtime.model import (
    Bind,
    ContainerId,
    LogLimits,
    Process,
    Rlimit,
    Root,
    Shown,
    StartRequest,
    StopReason,
    Tmpfs,
)


@dataclass(frozen=True, slots=True)
class Image:
    """Files of an image: its root index and its layers' tars, lowest first."""

    index: Path
    layers: tuple[Path, ...]

    def open(self, root: Root) -> Root:
        """`root` with descriptors of these files."""
        fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (self.index, *self.layers)]
        return replace(root, index_fd=fds[0], layer_fds=tuple(fds[1:]))


def main(
    image: Image,
    request: StartRequest,
    *,
    state_dir: Path,
    cgroup_parent: str,
    detach: bool = False,
    watch: Callable[[], StopReason | None] | None = None,
    watch_interval: float = 1.0,
) -> None:
    """Start it and end as the command does; a test run that is killed takes this process with it."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    request = replace(request, root=image.open(request.root))
    try:
        code = run(
            request,
            state_dir=state_dir,
            cgroup_parent=cgroup_parent,
            detach=detach,
            watch=watch,
            watch_interval=watch_interval,
            on_stop=lambda reason: print(f"stopped: {reason.code}: {reason.message}", file=sys.stderr),  # noqa: T201
        )
    except ContainerError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        raise SystemExit(error.exit_code) from None
    raise SystemExit(code if isinstance(code, int) else 0)


__all__ = [
    "Bind",
    "ContainerId",
    "Image",
    "LogLimits",
    "Path",
    "PosixPath",
    "Process",
    "Rlimit",
    "Root",
    "Shown",
    "StartRequest",
    "StopReason",
    "Tmpfs",
    "main",
    "sys",
]
