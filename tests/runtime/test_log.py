"""The log that is kept of a container: lines, parts, bounds, rotation, damage."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from runtime.log import PART, LogLine, LogWriter, read_log, timestamp
from runtime.model import LogLimits


def texts(folder: Path) -> list[tuple[str, str]]:
    return [(line.stream, line.text) for line in read_log(folder)]


def test_lines_as_they_come(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, LogLimits())
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"error\n")
    log.write("stdout", b"o\nthree")
    log.close()
    assert texts(tmp_path) == [("stdout", "one\n"), ("stderr", "error\n"), ("stdout", "two\n"), ("stdout", "three")]
    first = json.loads((tmp_path / "log").read_text().splitlines()[0])
    assert sorted(first) == ["log", "stream", "time"]
    assert first["time"].endswith("Z")


def test_times_are_rfc_3339_in_utc() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, LogLimits())
    log.write("stdout", b"\xff\x00\x1b[31m\n")
    log.close()
    assert texts(tmp_path) == [("stdout", "\ufffd\x00\x1b[31m\n")]


def test_an_endless_line_is_written_in_parts(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, LogLimits())
    for _ in range(10):
        log.write("stdout", b"x" * PART)
    assert len(texts(tmp_path)) == 10
    log.write("stdout", b"\n")
    log.close()
    assert "".join(text for _, text in texts(tmp_path)) == "x" * PART * 10 + "\n"


def test_files_are_bounded_and_the_oldest_lines_go(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, LogLimits(max_bytes=1000, files=3))
    for number in range(200):
        log.write("stdout", f"{number}\n".encode())
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    kept = [int(text) for _, text in texts(tmp_path)]
    assert kept == list(range(kept[0], 200))


def test_one_file_only(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, LogLimits(max_bytes=500, files=1))
    for number in range(50):
        log.write("stdout", f"{number}\n".encode())
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert texts(tmp_path)[-1] == ("stdout", "49\n")


def test_a_full_disk_loses_output_and_nothing_else(tmp_path: Path) -> None:
    """A limit on file sizes fails a write as a full disk does; Python ignores its signal."""
    log = LogWriter(tmp_path, LogLimits())
    log.write("stdout", b"before\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        log.write("stdout", b"12345\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write("stdout", b"after\n")
    log.close()
    assert log.lost == 6
    assert [text for _, text in texts(tmp_path)] == ["before\n", "after\n"]


def test_a_link_where_the_log_should_be_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/null")
    with pytest.raises(OSError, match="symbolic links"):
        LogWriter(tmp_path, LogLimits())


def test_damaged_lines_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"log": "a\\n", "stream": "stdout", "time": "t"}\nnonsense\n{"log": 1}\n[]\n')
    lines = list(read_log(tmp_path))
    assert lines[0] == LogLine(stream="stdout", time="t", text="a\n")
    assert [line.text for line in lines[1:]] == ["(a damaged line of the log)\n"] * 3


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert list(read_log(tmp_path)) == []
    assert list(read_log(tmp_path, follow=True)) == []
