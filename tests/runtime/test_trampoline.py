"""The last program before the container's own: what it does, and what it cannot be made to do."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.linux import syscalls
from runtime.linux.trampoline import CODE, ERROR_FD, elf, trampoline
from tests.support.tools import need


def execute(argv: Sequence[str], env: Sequence[str] = ("A=1",), *, pipe: bool = True) -> tuple[int, bytes, bytes]:
    """Run the trampoline with this argument list: exit code, what it told on the error pipe, standard output."""
    errors, output = os.pipe(), os.pipe()
    program = trampoline()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(output[1], 1)
            first = os.dup(program) if program == ERROR_FD else program
            os.dup2(errors[1], ERROR_FD, inheritable=True)
            if not pipe:
                os.close(ERROR_FD)
            syscalls.execve(first, tuple(argv), tuple(env))
        finally:
            os._exit(99)
    for fd in (errors[1], output[1], program):
        os.close(fd)
    with os.fdopen(errors[0], "rb") as told, os.fdopen(output[0], "rb") as out:
        said, wrote = told.read(), out.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said, wrote


def test_it_becomes_the_program_with_its_arguments_and_environment() -> None:
    busybox = need("busybox")
    script = 'echo "$0|$1|$A"; tr "\\0" " " < /proc/$$/environ; readlink /proc/$$/exe'
    code, said, out = execute([busybox, "busybox", "sh", "-c", script, "zero", "one two"])
    assert (code, said) == (0, b"")
    assert out.decode() == f"zero|one two|1\nA=1 {Path(busybox).resolve()}\n"


def test_the_error_pipe_does_not_reach_the_program() -> None:
    busybox = need("busybox")
    _, _, out = execute([busybox, "busybox", "sh", "-c", f"[ -e /proc/$$/fd/{ERROR_FD} ] && echo open || echo closed"])
    assert out == b"closed\n"


@pytest.mark.parametrize(
    ("path", "number"),
    [("/nothing", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/etc/passwd/x", errno.ENOTDIR), ("", errno.ENOENT)],
)
def test_a_failure_is_told_as_its_errno(path: str, number: int) -> None:
    code, said, _ = execute([path, "x"])
    assert code == 126
    assert -int.from_bytes(said, "little", signed=True) == number


def test_x1_reached_again_it_ends() -> None:
    """Without the pipe it is somebody's /proc/self/exe, not ours: it executes nothing."""
    assert execute([need("busybox"), "busybox", "echo", "run"], pipe=False) == (126, b"", b"")
    assert execute(["/proc/self/exe", "/proc/self/exe", "/proc/self/exe"]) == (126, b"", b"")


def test_x1_it_can_never_be_written() -> None:
    fd = trampoline()
    try:
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        try:
            with pytest.raises(PermissionError):
                os.pwrite(again, b"x", 0)
        finally:
            os.close(again)
    finally:
        os.close(fd)


@pytest.mark.parametrize("machine", sorted(CODE))
def test_it_is_a_small_static_program(machine: str) -> None:
    content = elf(machine)
    assert len(content) < 300
    assert content[:4] == b"\x7fELF"
    kinds = [struct.unpack_from("<II", content, 64 + 56 * number) for number in range(2)]
    assert kinds == [(1, 5), (0x6474E551, 6)]  # PT_LOAD without write, PT_GNU_STACK without execute


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="got machine vax, expected one of x86_64, aarch64"):
        elf("vax")
