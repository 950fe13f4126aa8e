"""What no sandbox can be made from is refused where the value is made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import RequestError
from runtime.model import Bind, ContainerId, Process, Rlimit, Root, StartRequest, Tmpfs


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "0", "x" * 63])
def test_names(name: str) -> None:
    assert str(ContainerId(name)) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", ".a", "a/b", "a b", "a\n", "ä", "x" * 64, "a\0", "../x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(RequestError, match="container name"):
        ContainerId(name)


@given(st.text(max_size=70))
def test_a_name_is_safe_as_a_path_component(text: str) -> None:
    try:
        name = str(ContainerId(text))
    except RequestError:
        return
    assert "/" not in name
    assert name not in {".", ".."}
    assert name.isascii()
    assert name.isprintable()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"argv": ()}, "no program"),
        ({"argv": ("",)}, "no program"),
        ({"argv": ("a\0b",)}, "holds a NUL"),
        ({"env": ("A=\0",)}, "holds a NUL"),
        ({"env": ("A",)}, "is not NAME=VALUE"),
        ({"env": ("=A",)}, "is not NAME=VALUE"),
        ({"cwd": "tmp"}, "is not absolute"),
        ({"cwd": ""}, "is not absolute"),
        ({"uid": -1}, "out of range"),
        ({"uid": 2**32 - 1}, "out of range"),
        ({"gid": 2**32}, "out of range"),
        ({"groups": (0, 2**64)}, "out of range"),
        ({"capabilities": ("CHOWN",)}, "is unknown"),
        ({"capabilities": ("cap_chown",)}, "is unknown"),
        ({"ambient": ("CAP_CHOWN",)}, "is not among its capabilities"),
        ({"umask": 0o1000}, "umask"),
        ({"terminal": True}, "terminal"),
    ],
)
def test_x7_processes_that_cannot_be(members: dict[str, Any], message: str) -> None:
    """CVE-2024-40635: an overflowing uid became root."""
    with pytest.raises(RequestError, match=message):
        Process(**{"argv": ("x",), **members})


@pytest.mark.parametrize("source", ["", "/", "a", "/a/", "//a", "/a//b", "/a/./b", "/a/../b", "/a\0"])
def test_sources_of_binds(source: str) -> None:
    with pytest.raises(RequestError, match="bind"):
        Bind(source=source, target="/a")


@pytest.mark.parametrize("target", ["", "/", "a", "/.", "/..", "/a/../b", "//", "/a\0"])
def test_targets(target: str) -> None:
    with pytest.raises(RequestError, match="mount target"):
        Bind(source="/a", target=target)
    with pytest.raises(RequestError, match="mount target"):
        Tmpfs(target=target)


@pytest.mark.parametrize(
    "members",
    [
        {"memory": 1024},
        {"memory": -1},
        {"pids": 0},
        {"cpu": 999},
        {"hostname": "a" * 65},
        {"hostname": "a b"},
        {"hostname": "a\n127.0.0.1 bank.test"},
        {"network": "bridge"},
        {"stop_signal": 0},
        {"stop_signal": 65},
        {"stop_grace": -1.0},
        {"stop_grace": float("inf")},
        {"stop_grace": float("nan")},
    ],
)
def test_requests_that_cannot_be(members: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        StartRequest(name=ContainerId("x"), root=Root(index_fd=0), process=Process(argv=("x",)), **members)


def test_resource_limits() -> None:
    assert Rlimit(name="RLIMIT_AS", soft=5, hard=-1).hard == -1
    for name, soft, hard in (("RLIMIT_X", 0, 0), ("RLIMIT_AS", 2, 1), ("RLIMIT_AS", -1, 1), ("RLIMIT_AS", -2, 1)):
        with pytest.raises(RequestError, match="resource limit"):
            Rlimit(name=name, soft=soft, hard=hard)


def test_tmpfs_numbers() -> None:
    refused: list[dict[str, Any]] = [{"size": 0}, {"mode": 0o10000}, {"uid": -1}, {"gid": 2**32}]
    for members in refused:
        with pytest.raises(RequestError, match="out of range"):
            Tmpfs(target="/t", **members)
