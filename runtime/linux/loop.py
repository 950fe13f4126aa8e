"""Loop devices that go away by themselves: for kernels that mount EROFS only from block devices."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from runtime.linux import constants as c
from runtime.linux import structs

ATTEMPTS: Final = 32
"""How often a free device may be taken by somebody else before we took it."""


def attach_loop(fd: int) -> int:
    """A read-only loop device over the file `fd`, as an open descriptor.

    The kernel takes the device down when nobody has it open or mounted any more (LO_FLAGS_AUTOCLEAR), so
    neither a crash nor a forgotten call leaves one behind.

    Raises:
        OSError: no loop devices here, or ATTEMPTS others were quicker.
    """
    info = (0, 0, 0, 0, 0, 0, 0, 0, c.LO_FLAGS_READ_ONLY | c.LO_FLAGS_AUTOCLEAR, b"", b"", b"", 0, 0)
    config = structs.loop_config.pack(fd, 512, *info)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(ATTEMPTS):
            number = fcntl.ioctl(control, c.LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, c.LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise OSError(error.errno, f"LOOP_CONFIGURE: {error.strerror}", f"/dev/loop{number}") from error
            else:
                return device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, f"LOOP_CONFIGURE: {ATTEMPTS} free devices were taken by others", "/dev/loop-control")
