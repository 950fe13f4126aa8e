"""Log lines on standard error: one a record, as text or JSON, each in one write that nothing else can come between.

Whatever a client sent may stand in a message, so control characters are written as escapes: no request can end a
line and begin one of its own, or speak to a terminal. A line has at most MAX_LINE bytes, which a pipe takes whole
(pipe(7), PIPE_BUF): all processes of the registry share one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from registry.telemetry.origin import current

MAX_LINE: Final = 4096
MAX_MESSAGE: Final = 2000
"""Characters of a message, and the last ones of a traceback."""

LOGGER: Final = "pratique"
"""The logger that all of ours are below; of libraries, only warnings and errors are shown."""

_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Fields = Mapping[str, "str | int | float"]
Sink = Callable[[bytes], None]


def to_stderr(line: bytes) -> None:
    """Write one line, waiting until it can be written; nobody can be told that it cannot."""
    with suppress(OSError):
        os.write(2, line)


class Formatter:
    """Makes the line of a record; `process` is the name that every line of this process bears."""

    def __init__(self, process: str, *, as_json: bool) -> None:
        """Make JSON, or text."""
        self._process, self.as_json = process, as_json

    def record(self, record: logging.LogRecord) -> bytes:
        """The line of a record of `logging`."""
        fields: dict[str, str | int | float] = {}
        if origin := current.get().request:
            fields["request"] = origin
        if record.exc_info and record.exc_info[0] is not None:
            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))[-MAX_MESSAGE:]
        return self.line(record.created, record.levelname.lower(), record.getMessage()[:MAX_MESSAGE], fields)

    def line(self, when: float, level: str, message: str, fields: Fields) -> bytes:
        """A line of its own: `when` in seconds since 1970."""
        made = self._made(when, level, message, fields)
        if len(made) > MAX_LINE:
            short = {name: value[-200:] if isinstance(value, str) else value for name, value in fields.items()}
            made = self._made(when, level, message[:200], short)
        return made if len(made) <= MAX_LINE else self._made(when, level, message[:200], {})

    def _made(self, when: float, level: str, message: str, fields: Fields) -> bytes:
        if self.as_json:
            members = {"time": _time(when), "level": level, "process": self._process, "message": message, **fields}
            # ASCII alone, so nothing of it is a control character.
            return json.dumps(members, separators=(",", ":")).encode() + b"\n"
        said = " ".join(f"{name}={value}" for name, value in fields.items() if name != "traceback")
        text = f"{_time(when)} {level.upper()} {self._process}: {message}{' ' if said else ''}{said}"
        trace = str(fields.get("traceback", "")).splitlines()
        return "".join(f"{escaped(line)}\n" for line in (text, *(f"    | {line}" for line in trace))).encode()


class Handler(logging.Handler):
    """Hands the line of each record to a sink."""

    def __init__(self, formatter: Formatter, sink: Sink) -> None:
        """Take who makes lines, and who takes them."""
        super().__init__()
        self.lines, self.sink = formatter, sink

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self.sink(self.lines.record(record))
        except Exception:  # as `logging` itself does: a line that cannot be made is no reason to fail
            self.handleError(record)


def configure(process: str, *, level: str = "info", as_json: bool = False, sink: Sink = to_stderr) -> Handler:
    """Have this process log in one form, and return the handler; called again, it is the same one, changed."""
    formatter = Formatter(process, as_json=as_json)
    match logging.root.handlers:
        case [Handler() as handler]:  # ours, also in a process that was forked
            handler.lines, handler.sink = formatter, sink
        case _:
            handler = Handler(formatter, sink)
            logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
            logging.captureWarnings(capture=True)
    set_level(level)
    return handler


def set_level(level: str) -> None:
    """Have our own lines of at least this level shown."""
    logging.getLogger(LOGGER).setLevel(level.upper())


def escaped(text: str) -> str:
    r"""`text` with control characters, line ends and lone surrogates as \x.., \u....."""
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _time(when: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(when))}.{int(when * 1000) % 1000:03d}Z"
