"""The last program before the container's own: a few dozen bytes of machine code in a sealed memfd.

Until execve, /proc/self/exe of a starting container is the host's Python. An entrypoint that is a link to
/proc/self/exe, or a script that starts with `#!/proc/self/exe`, would run that file again with libraries of
the container's choosing, and could then write to it (X1, CVE-2019-5736). So the launcher executes this first:
from then on /proc/self/exe is a memfd that nobody can write, and which only does

    fcntl(3, F_SETFD, FD_CLOEXEC) or exit_group(126)
    execve(argv[0], argv + 1, envp); write(3, &-errno, 4); exit_group(126)

argv[0] is the path to execute, argv + 1 the program's argument list, 3 the pipe on which errors are told. A
program that leads to it again finds no descriptor 3, and ends there.
It needs no stack but the kernel's, no libc and no memory of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final

from runtime.linux import constants as c
from runtime.linux.syscalls import MACHINE

ERROR_FD: Final = 3
"""The descriptor on which the trampoline writes a negative errno, four bytes, if execve failed."""

_X86_64: Final = bytes.fromhex(
    "bf03000000 be02000000 ba01000000 b848000000 0f05"  # mov edi,3; mov esi,2; mov edx,1; mov eax,72; syscall
    "85c0 752f"  # test eax,eax; jnz to the last line
    "488b0424 488d54c410"  # mov rax,[rsp]; lea rdx,[rsp+rax*8+16]
    "488b7c2408 488d742410 b83b000000 0f05"  # mov rdi,[rsp+8]; lea rsi,[rsp+16]; mov eax,59; syscall
    "50 bf03000000 4889e6 ba04000000 b801000000 0f05"  # push rax; mov edi,3; mov rsi,rsp; mov edx,4; mov eax,1; syscall
    "bf7e000000 b8e7000000 0f05"  # mov edi,126; mov eax,231; syscall
)
_AARCH64: Final = struct.pack(
    "<22I",
    *(0xD2800060, 0xD2800041, 0xD2800022, 0xD2800328, 0xD4000001),  # mov x0,3; mov x1,2; mov x2,1; mov x8,25; svc 0
    0xB50001C0,  # cbnz x0, to the last line
    *(0xF94003E9, 0x8B296FE2, 0x91004042),  # ldr x9,[sp]; add x2,sp,x9,lsl 3; add x2,x2,16
    *(0xF94007E0, 0x910043E1, 0xD2801BA8, 0xD4000001),  # ldr x0,[sp,8]; add x1,sp,16; mov x8,221; svc 0
    *(0xF81F0FE0, 0xD2800060, 0x910003E1),  # str x0,[sp,-16]!; mov x0,3; mov x1,sp
    *(0xD2800082, 0xD2800808, 0xD4000001),  # mov x2,4; mov x8,64; svc 0
    *(0xD2800FC0, 0xD2800BC8, 0xD4000001),  # mov x0,126; mov x8,94; svc 0
)
CODE: Final = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""Machine name to (e_machine, code)."""

_BASE: Final = 0x400000
_HEADERS: Final = 64 + 2 * 56


def elf(machine: str) -> bytes:
    """A static ELF executable of `machine` that holds the code and nothing else.

    Raises:
        NotImplementedError: there is no code for this machine.
    """
    if machine not in CODE:
        raise NotImplementedError(f"trampoline: got machine {machine}, expected one of {', '.join(CODE)}")
    number, code = CODE[machine]
    size = _HEADERS + len(code)
    # elf(5): 64-bit, little endian, ET_EXEC; one PT_LOAD (read, execute) and a PT_GNU_STACK that is not executable.
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 2, 64, 0, 0),
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


def sealed(name: str, content: bytes) -> int:
    """An executable memfd, close-on-exec, with this content, that can never be written again."""
    flags = c.MFD_CLOEXEC | c.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | c.MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.3 there is no MFD_EXEC, and every memfd is executable
            raise
        fd = os.memfd_create(name, flags)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    fcntl.fcntl(fd, c.F_ADD_SEALS, c.F_SEAL_WRITE | c.F_SEAL_SHRINK | c.F_SEAL_GROW | c.F_SEAL_SEAL)
    return fd


def trampoline() -> int:
    """The trampoline of this machine, in a sealed memfd."""
    return sealed("trampoline", elf(MACHINE))
