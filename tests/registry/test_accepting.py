"""A socket that several processes accept at, of which one stops."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

from registry.accepting import Accepting, leave

SECONDS = 0.01


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def told(epoll: select.epoll) -> bool:
    return bool(epoll.poll(SECONDS))


def test_left_sockets_are_not_reported_by_any_descriptor_in_any_instance(listener: socket.socket) -> None:
    with listener.dup() as copy, select.epoll() as first, select.epoll() as second:
        first.register(listener, select.EPOLLIN | select.EPOLLET)
        second.register(copy, select.EPOLLIN)
        with socket.create_connection(listener.getsockname()):
            assert told(first)
            assert told(second)
            leave(os.fstat(listener.fileno()))
            assert not told(second)
            with socket.create_connection(listener.getsockname()):
                assert not told(first)
                listener.accept()[0].close()  # still there for others


def test_other_sockets_are_left_alone(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, select.epoll() as epoll:
        epoll.register(other, select.EPOLLIN)
        leave(os.fstat(listener.fileno()))
        with socket.create_connection(other.getsockname()):
            assert told(epoll)


def test_a_forked_process_stops_when_its_parent_says_so_and_the_parent_goes_on(listener: socket.socket) -> None:
    accepting = Accepting(listener)
    heard, says = os.pipe()
    with socket.create_connection(listener.getsockname()):
        child = os.fork()
        if not child:
            _follow(listener, accepting, says)
        assert os.read(heard, 1) == b"."  # it is told of who connected
        accepting.end()
        assert os.waitpid(child, 0)[1] == 0  # and no longer
        listener.accept()[0].close()
    os.close(heard)
    os.close(says)


def _follow(listener: socket.socket, accepting: Accepting, says: int) -> NoReturn:
    """In a child: say when a connection is reported, and end when none is any more."""
    try:
        with select.epoll() as epoll:
            epoll.register(listener, select.EPOLLIN)
            accepting.follow()
            if told(epoll):
                os.write(says, b".")
            while told(epoll):
                pass
    finally:
        os._exit(0)
