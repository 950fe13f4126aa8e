"""The errors of runtime/: why a container did not start, or could not be looked at.

A refusal by policy is not among them: that is a value (a denied Decision), made before the sandbox is
asked for anything.
"""

from __future__ import annotations

from typing import ClassVar

FAILED = 125
"""Exit code when the runtime itself failed, as docker and podman have it."""
NOT_EXECUTABLE = 126
"""Exit code when the program is there and cannot be executed."""
NOT_FOUND = 127
"""Exit code when the program is not there."""


class ContainerError(Exception):
    """Something about a container broke. `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = FAILED


class RequestError(ContainerError):
    """A start request holds what no sandbox can be made from (a bad name, path, capability, limit)."""


class NameTakenError(ContainerError):
    """A container of this name exists already."""


class NoSuchContainerError(ContainerError):
    """No container of this name exists."""


class StateError(ContainerError):
    """The state folder is not ours, not readable, or the container is not in the state this needs."""


class StoreError(ContainerError):
    """The local store cannot be read or written: not ours, damaged, in use, or the disk is full."""


class HostError(ContainerError):
    """This host lacks what the sandbox needs: a kernel feature, a controller, a tool, a privilege."""


class StepError(ContainerError):
    """One step of the start failed; the container was never executed. The message names the step."""


class NotExecutableError(StepError):
    """The container's program exists and the kernel does not execute it."""

    exit_code: ClassVar[int] = NOT_EXECUTABLE


class NotFoundError(StepError):
    """The container's program, or the interpreter it names, does not exist."""

    exit_code: ClassVar[int] = NOT_FOUND
