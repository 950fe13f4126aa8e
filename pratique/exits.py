"""Exit codes of the command, one table for all verbs; `run` has docker's on top."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """0 fine, 1 failed, 2 wrong usage, 3 denied; 125 to 127 as docker run has them."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    NOT_STARTED = 125
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127


class UsageError(Exception):
    """The arguments are well-formed, and still cannot mean anything: exit code 2."""


class CommandError(Exception):
    """The verb could not do what it was asked; the message is the one line that the user sees: exit code 1."""
