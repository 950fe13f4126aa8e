"""The signer's socket: bounded messages, one request a connection, and nothing but what it does."""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.errors import SpecError
from policy import canonical, codec
from policy.model import State
from policy.statements import ListDate
from registry.signer.client import SignerClient
from registry.signer.memory import Memory, SignerMemoryError, TagMemory
from registry.signer.protocol import MAX_BODY, SignerRefusedError, SignerUnavailableError, receive, send
from registry.signer.server import Server
from registry.signer.signer import Signer
from registry.sockets import bind
from tests.support import judging
from tests.support import trust as builders
from tests.support.judging import Heap
from tests.support.trust import NOW, REGISTRY, REPOSITORY, Keyring


@pytest.fixture
def ring() -> Keyring:
    return builders.keyring()


@pytest.fixture
def path(ring: Keyring, tmp_path: Path) -> Iterator[Path]:
    where, stop = tmp_path / "signer.sock", threading.Event()
    listener = bind(where, socket.SOCK_STREAM)

    def serve() -> None:
        memory = Memory(tmp_path / "memory.sqlite")
        signer = Signer(key=ring.registry, registry=REGISTRY, memory=memory, clock=lambda: NOW)

        Server(listener=listener, signer=signer, allowed={os.geteuid()}).run(stop.is_set)
        memory.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield where
    stop.set()
    thread.join()
    listener.close()


def _raw(path: Path, header: bytes, body: bytes = b"") -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(struct.pack(">I", len(header)) + header + body)
        return dict(receive(connection, what="answer", seconds=10).members)


def test_client_and_server_speak_the_same_words(path: Path, ring: Keyring) -> None:
    client = SignerClient(path=path, seconds=20)
    assert client.status().trust == 0
    client.take_trust(ring.envelope)
    client.learn(judging.published_policy(ring, now=NOW))
    listed = judging.published_list(ring, now=NOW)
    client.learn(listed)
    status = client.status()
    assert (status.registry, status.pem, status.policy, status.revocations) == (
        REGISTRY,
        ring.registry.public.pem,
        "default",
        1,
    )
    image = builders.image_facts(layers=("base layer",), name="base")
    heap = Heap(statements=(judging.approve(image, "base", ring.alice, ring.bob, now=NOW),), revocations=listed)
    evidence = judging.evidence_on(image, ring.trust, heap, now=NOW)
    judged = client.judge(codec.encode_evidence(evidence))
    assert judged.decision.state is State.CLEARED
    assert judged.clearance is not None
    tag = client.sign_tag(REPOSITORY, "1", judged.clearance)
    assert [simple.digest for simple in tag.simple] == [image.manifest]
    assert ring.trust.verify(client.date_list(), ListDate, NOW).statement.number == 1
    assert client.sign_checkpoint(1, Digest.of(b""))
    with pytest.raises(SignerRefusedError) as error:
        client.sign_tag("team/other", "1", judged.clearance)
    assert error.value.code == "wrong-repository"


@pytest.mark.parametrize(
    "members",
    [
        {"op": "sign"},
        {"op": "revoke"},
        {"op": 7},
        {},
        {"op": "tag", "repository": "a/b", "tag": "1", "number": 1, "parts": [0]},
        {"op": "tag", "repository": "a/b", "tag": "1"},
        {"op": "checkpoint", "records": 0, "head": str(Digest.of(b""))},
        {"op": "checkpoint", "records": 1, "head": "sha256:../../etc"},
        {"op": "date", "parts": [-1]},
        {"op": "date", "parts": [MAX_BODY + 1]},
        {"op": "date", "parts": [True]},
    ],
)
def test_s12_what_the_signer_does_not_do_is_refused(path: Path, members: dict[str, canonical.Canonical]) -> None:
    assert _raw(path, canonical.encode({"parts": [], **members}))["refused"] in {"malformed", "no-trust"}


def test_malformed_messages_are_refused_and_the_next_is_served(path: Path) -> None:
    assert _raw(path, b"no json")["refused"] == "malformed"
    assert _raw(path, b'{"op":"status","op":"date"}')["refused"] == "malformed"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"\xff\xff\xff\xff")
        assert receive(connection, what="answer", seconds=10).members["refused"] == "malformed"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(struct.pack(">I", 100) + b"cut")
    assert SignerClient(path=path, seconds=20).status().registry == REGISTRY


def test_signer_that_is_away_or_talks_nonsense_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SignerUnavailableError):
        SignerClient(path=tmp_path / "nowhere").status()
    with bind(tmp_path / "mute.sock", socket.SOCK_STREAM) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                receive(connection, what="request", seconds=10)
                send(connection, {"ok": True}, [])

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SignerUnavailableError):
            SignerClient(path=tmp_path / "mute.sock", seconds=10).date_list()
        thread.join()
    with bind(tmp_path / "slow.sock", socket.SOCK_STREAM), pytest.raises(SignerUnavailableError):
        SignerClient(path=tmp_path / "slow.sock", seconds=0.2).status()


def test_cut_off_answer_is_no_answer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack(">I", 20) + b"{}")
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(SpecError, match="cut off"):
            receive(ours, what="answer", seconds=5)


def test_memory_that_cannot_be_read_stops_the_signer(tmp_path: Path) -> None:
    broken = tmp_path / "memory.sqlite"
    broken.write_bytes(b"no database at all" * 100)
    with pytest.raises(SignerMemoryError):
        Memory(broken)
    good = tmp_path / "other.sqlite"
    memory = Memory(good)
    with memory.change() as conn:
        conn.exec_driver_sql("UPDATE signer_meta SET value = '3' WHERE name = 'format'")
    memory.close()
    with pytest.raises(SignerMemoryError, match="format '3'"):
        Memory(good)


def test_memory_that_was_made_is_only_opened(tmp_path: Path) -> None:
    with pytest.raises(SignerMemoryError, match="no such table"):
        Memory(tmp_path / "none.sqlite", made=True)
    first = Memory(tmp_path / "memory.sqlite")
    first.close()
    again = Memory(tmp_path / "memory.sqlite", made=True)
    assert again.id() == first.id()
    with again.change() as conn:
        conn.exec_driver_sql("UPDATE signer_meta SET value = '3' WHERE name = 'format'")
    again.close()
    with pytest.raises(SignerMemoryError, match="format '3'"):
        Memory(tmp_path / "memory.sqlite", made=True)


def test_memory_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            """
            CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
            CREATE TABLE current (name TEXT PRIMARY KEY, number INTEGER NOT NULL, digest TEXT NOT NULL,
                                  issued INTEGER NOT NULL, envelope BLOB NOT NULL) WITHOUT ROWID;
            CREATE TABLE withdrawn (digest TEXT PRIMARY KEY) WITHOUT ROWID;
            CREATE TABLE said (repository TEXT NOT NULL, digest TEXT NOT NULL, clearance TEXT NOT NULL,
                               until INTEGER NOT NULL, PRIMARY KEY (repository, digest)) WITHOUT ROWID;
            CREATE TABLE tag (repository TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL,
                              digest TEXT NOT NULL, day INTEGER NOT NULL, moves INTEGER NOT NULL,
                              PRIMARY KEY (repository, name)) WITHOUT ROWID;
            INSERT INTO meta VALUES ('format', '1');
            """
        )
        gone, served = Digest.of(b"withdrawn"), Digest.of(b"served")
        old.execute("INSERT INTO withdrawn VALUES (?)", (str(gone),))
        old.execute("INSERT INTO tag VALUES ('team/app', '1', 41, ?, 20000, 3)", (str(served),))
        old.commit()
    memory = Memory(path)
    assert memory.is_withdrawn(gone)
    assert memory.tag("team/app", "1") == TagMemory(number=41, digest=served, day=20000, moves=3)
    memory.put_tag("team/app", "1", TagMemory(number=42, digest=gone, day=20000, moves=4))
    memory.close()
    again = Memory(path)
    assert again.tag("team/app", "1") == TagMemory(number=42, digest=gone, day=20000, moves=4)
    again.close()


def test_memory_belongs_to_one_key(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory.sqlite")
    memory.bind_key("sha256:one")
    memory.bind_key("sha256:one")
    with pytest.raises(SignerMemoryError, match="belongs to key sha256:one, this signer has key sha256:two"):
        memory.bind_key("sha256:two")
    memory.bind_key("sha256:two", replace=True)
    memory.bind_key("sha256:two")
    memory.close()
