"""Ask this host's broker to do a verb, with as little of Python as that takes: most of a short command is imports.

`_socket` and `_signal` are what the modules `socket` and `signal` wrap: those import enum and selectors, which takes
longer than the container does to start. deploy/client.c does the same without an interpreter.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # no stub has it
import _socket
import os

START = "run"
LOOKS = frozenset({"ps", "logs"})
"""Verbs that users who are not root can have the broker do."""
VERSION = b"1"
LIMIT = 256 * 1024
"""Bytes of an answer."""
FORWARDED = (1, 2, 3, 10, 12, 14, 15, 28)
"""HUP, INT, QUIT, USR1, USR2, ALRM, TERM and WINCH: signal(7), the numbers of x86 and Arm."""
LOST = 125


def ask(verb: str, words: list[str]) -> int | None:
    """The exit code, once the broker has done it; None if there is no broker, or it leaves this to us."""
    if verb != START and not (verb in LOOKS and os.geteuid() != 0):
        return None
    # Another store or state folder has another broker, or none; --st is what both options begin with.
    if any(word.startswith("--st") for word in words):
        return None
    store = os.environ.get("PRATIQUE_STORE", "/var/lib/pratique")
    state = os.environ.get("PRATIQUE_STATE", "/run/pratique")
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"{state}.sock")
        asked = (VERSION, *map(os.fsencode, (verb, store, state, *words)))
        streams = b"".join(fd.to_bytes(4, "little") for fd in (0, 1, 2))
        connection.sendmsg(
            [b"".join(word + b"\0" for word in asked)],
            [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)],
            _socket.MSG_NOSIGNAL,
        )
    except OSError:
        return None  # nobody listens, we may not ask, or it is more than one message holds
    for number in FORWARDED:
        _signal.signal(number, lambda number, _: _pass_on(connection, number))
    return _answers(connection)


def _answers(connection: _socket.socket) -> int | None:
    while True:
        try:
            answer = connection.recv(LIMIT)
        except OSError:
            answer = b""
        kind, rest = answer[:1], answer[1:]
        if kind in (b"1", b"2"):
            _write(int(kind), rest)
        elif kind == b"x":
            return int(rest)
        elif kind == b"-":
            for number in FORWARDED:
                _signal.signal(number, _signal.SIG_DFL)
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
            return None
        else:
            _write(2, b"pratique: broker: the connection was lost; `pratique ps` shows what runs\n")
            return LOST


def _write(fd: int, text: bytes) -> None:
    try:
        while text:
            text = text[os.write(fd, text) :]
    except OSError:
        return  # whoever read it is gone


def _pass_on(connection: _socket.socket, number: int) -> None:
    try:
        connection.send(bytes([number]), _socket.MSG_NOSIGNAL)
    except OSError:
        return  # it has ended
