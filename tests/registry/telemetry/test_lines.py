"""Log lines: nothing that a client sends can end one, begin one, or speak to a terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.telemetry import lines
from registry.telemetry.origin import Origin, within

HOSTILE = [
    "a\nb",
    "a\r\n2026-01-01T00:00:00.000Z ERROR serve: forged",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31mred",
    "a\u2028b\u2029c\x85d",
    "\x00\x08\x7f",
    "\ud800",
]
FORMS = [False, True]


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord("pratique.test", logging.WARNING, "test.py", 1, message, arguments, info)


def is_one_line(line: bytes) -> None:
    assert line.endswith(b"\n")
    text = line[:-1].decode("utf-8")
    assert len(text.splitlines()) == 1
    assert not [letter for letter in text if letter < " " or "\x7f" <= letter <= "\x9f"]
    assert len(line) <= lines.MAX_LINE


@pytest.mark.parametrize("as_json", FORMS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_within_its_line(text: str, as_json: bool) -> None:
    made = lines.Formatter("web", as_json=as_json).record(record("path %s", text))
    is_one_line(made)
    made = lines.Formatter("web", as_json=as_json).line(0.0, "info", text, {"path": text, "bytes": 1})
    is_one_line(made)


@given(message=st.text(max_size=6000), field=st.text(max_size=6000), as_json=st.booleans())
def test_whatever_it_is_a_line_is_one_line_of_bounded_length(message: str, field: str, as_json: bool) -> None:
    made = lines.Formatter("web", as_json=as_json).line(1e9, "info", message, {"field": field, "other": field})
    is_one_line(made)
    if as_json:
        found = json.loads(made)
        assert found["process"] == "web"
        assert message.startswith(found["message"])


@given(message=st.text(max_size=500))
def test_json_gives_back_what_was_said(message: str) -> None:
    assert json.loads(lines.Formatter("web", as_json=True).record(record("%s", message)))["message"] == message


def test_a_line_names_time_level_process_and_request() -> None:
    with within(Origin("abc-1", "")):
        text = lines.Formatter("judge", as_json=False).line(1700000000.25, "info", "said", {"n": 3})
        said = lines.Formatter("judge", as_json=True).record(record("said"))
    assert text == b"2023-11-14T22:13:20.250Z INFO judge: said n=3\n"
    found = json.loads(said)
    assert found["request"] == "abc-1"
    assert found["level"] == "warning"
    assert found["message"] == "said"


def test_a_traceback_is_one_member_of_json_and_marked_lines_of_text() -> None:
    try:
        int("bad\nvalue")
    except ValueError as error:
        made = record("failed", error=error)
    found = json.loads(lines.Formatter("web", as_json=True).record(made))
    assert "ValueError: invalid literal" in found["traceback"]
    first, *rest = lines.Formatter("web", as_json=False).record(made).decode().splitlines()
    assert first.endswith("WARNING web: failed")
    assert all(line.startswith("    | ") for line in rest)


@contextmanager
def configured(level: str) -> Iterator[list[bytes]]:
    root, ours = logging.getLogger(), logging.getLogger(lines.LOGGER)
    before = (root.handlers[:], root.level, ours.level)
    taken: list[bytes] = []
    try:
        lines.configure("test", level=level, sink=taken.append)
        yield taken
    finally:
        root.handlers[:], root.level = before[0], before[1]
        ours.setLevel(before[2])
        logging.captureWarnings(capture=False)


def test_configured_again_the_handler_that_is_there_is_changed() -> None:
    with configured("info") as taken:
        logging.root.handlers[:] = [lines.configure("serve", sink=taken.append)]
        there = logging.root.handlers[:]
        later: list[bytes] = []
        assert [lines.configure("web", level="error", sink=later.append)] == there == logging.root.handlers
        logging.getLogger("pratique.web").warning("not shown")
        logging.getLogger("pratique.web").error("shown")
    assert taken == []
    assert [line.split(b" ", 1)[1] for line in later] == [b"ERROR web: shown\n"]


def test_of_libraries_only_warnings_are_shown_and_levels_change_while_it_runs() -> None:
    with configured("info") as taken:
        logging.getLogger("pratique.web").info("ours")
        logging.getLogger("library").info("theirs")
        logging.getLogger("library").warning("theirs, a warning")
        lines.set_level("error")
        logging.getLogger("pratique.web").warning("not any more")
    assert [line.split(b": ", 1)[1] for line in taken] == [b"ours\n", b"theirs, a warning\n"]


def test_a_line_that_cannot_be_made_fails_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with configured("info") as taken:
        logging.getLogger("pratique.web").info("%d", "no number")
    assert taken == []
    assert "no number" in capsys.readouterr().err
