"""Hostile bytes in confinement: what a reader can still do there, and what it says of what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.erofs import root_index
from ocispec.layer import read_layer
from ocispec.merge import merge
from policy.statements import ResolvedUser
from runtime.errors import HostError, StoreError
from runtime.readers import Place, Readers, ReadLayer, UnreadableError
from tests.support.cleared import app_image, base_image
from tests.support.images import BuiltLayer, image, layer, tar
from tests.support.tools import need_root

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    need_root()
    with Readers.start(tmp_path_factory.mktemp("empty")) as started:
        yield started


def _read(readers: Readers, folder: Path, built: BuiltLayer, **changes: object) -> ReadLayer:
    """Have the layer read from a pipe that is written after the job was given."""
    expected: dict[str, object] = {
        "descriptor": built.descriptor,
        "diff_id": built.diff_id,
        "blob": built.blob,
        **changes,
    }
    descriptor, diff_id, blob = expected["descriptor"], expected["diff_id"], expected["blob"]
    assert isinstance(descriptor, Descriptor)
    assert isinstance(diff_id, Digest)
    assert isinstance(blob, bytes)
    source, sink = os.pipe()
    with (folder / "tar").open("w+b") as target, (folder / "listing").open("w+b") as listed:
        answer = readers.stored(source, descriptor, diff_id, target.fileno(), listed.fileno())
        os.close(source)
        rest = memoryview(blob)
        with contextlib.suppress(BrokenPipeError):  # it has refused already
            while rest:
                rest = rest[os.write(sink, rest) :]
        os.close(sink)
        return answer()


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_layer_is_inflated_and_listed(readers: Readers, tmp_path: Path, compression: str) -> None:
    built = layer({"a/": b"", "a/b": os.urandom(300_000)}, compression=compression)
    assert _read(readers, tmp_path, built) == ReadLayer(size=len(built.tar), members=2)
    assert (tmp_path / "tar").read_bytes() == built.tar
    assert (tmp_path / "listing").stat().st_size > 0


def test_digests_and_size_are_checked(readers: Readers, tmp_path: Path) -> None:
    built, other = layer({"a": b"1"}), layer({"a": b"2"})
    with pytest.raises(UnreadableError, match="diff_id mismatch"):
        _read(readers, tmp_path, built, diff_id=other.diff_id)
    with pytest.raises(UnreadableError, match="mismatch"):
        _read(readers, tmp_path, built, blob=other.blob)
    with pytest.raises(UnreadableError, match=r"cut short|mismatch"):
        _read(readers, tmp_path, built, blob=built.blob[:-5])
    with pytest.raises(UnreadableError, match="is not a layer that we read"):
        _read(readers, tmp_path, built, descriptor=replace(built.descriptor, media_type="application/x"))


def test_l5_a_bomb_is_refused_while_it_inflates(readers: Readers, tmp_path: Path) -> None:
    bomb = layer(bytes(280 * 1024 * 1024), compression="zstd")
    with pytest.raises(UnreadableError, match="stored bytes inflate to"):
        _read(readers, tmp_path, bomb)


def test_a_refusal_names_the_member_and_its_repair(readers: Readers, tmp_path: Path) -> None:
    built = layer({"../etc/passwd": b"1"}, compression="none")
    with pytest.raises(UnreadableError, match=r"offset 0: member .*passwd.*'\.\.' part") as caught:
        _read(readers, tmp_path, built)
    assert caught.value.repair == "name every member by its path from the root"


def test_a_full_disk_is_one_clear_line(readers: Readers, tmp_path: Path) -> None:
    built = layer({"a": b"1" * 100_000}, compression="none")
    blob = tmp_path / "blob"
    blob.write_bytes(built.blob)
    with blob.open("rb") as source, Path("/dev/full").open("wb") as target, (tmp_path / "l").open("wb") as listed:
        answer = readers.stored(source.fileno(), built.descriptor, built.diff_id, target.fileno(), listed.fileno())
        with pytest.raises(StoreError, match=f"layer {built.descriptor.digest}: disk full"):
            answer()


def test_a_tar_in_the_store_is_listed_again(readers: Readers, tmp_path: Path) -> None:
    built = layer({"a": b"1"}, compression="none")
    (tmp_path / "tar").write_bytes(built.tar)
    for diff_id in (built.diff_id, Digest.of(b"other")):
        with (tmp_path / "tar").open("rb") as source, (tmp_path / "listing").open("w+b") as listed:
            if diff_id == built.diff_id:
                assert readers.tar(source.fileno(), diff_id, listed.fileno()).members == 1
                continue
            with pytest.raises(UnreadableError, match=f"its tar in the store is {built.diff_id}"):
                readers.tar(source.fileno(), diff_id, listed.fileno())


def _listings(readers: Readers, folder: Path, layers: tuple[BuiltLayer, ...]) -> tuple[bytes, list[int]]:
    joined = []
    for built in layers:
        _read(readers, folder, built)
        joined.append((folder / "listing").read_bytes())
    return b"".join(joined), [len(each) for each in joined]


def test_the_root_index_is_the_one_that_everybody_makes(readers: Readers, tmp_path: Path) -> None:
    built = app_image(base_image())
    joined, sizes = _listings(readers, tmp_path, built.layers)
    (tmp_path / "listings").write_bytes(joined)
    with (tmp_path / "listings").open("rb") as listed, (tmp_path / "index").open("w+b") as target:
        made = readers.index(listed.fileno(), sizes, built.diff_ids, target.fileno())
    contents = [read_layer(io.BytesIO(each.tar), what="layer") for each in built.layers]
    assert (tmp_path / "index").read_bytes() == root_index(merge(contents), contents)
    assert made.passwd is not None
    assert made.group is not None
    assert built.layers[made.passwd.layer].tar[made.passwd.offset :].startswith(b"root:x:0:0::")


def test_listings_of_other_layers_or_cut_short_are_refused(readers: Readers, tmp_path: Path) -> None:
    built = app_image(base_image())
    joined, sizes = _listings(readers, tmp_path, built.layers)
    cases = (
        (joined, sizes, built.diff_ids[::-1], "of other layers"),
        (joined[:-1], sizes, built.diff_ids, "cut short"),
        (b"x" * len(joined), sizes, built.diff_ids, "listing"),
    )
    for content, lengths, diff_ids, reason in cases:
        (tmp_path / "listings").write_bytes(content)
        with (
            (tmp_path / "listings").open("rb") as listed,
            (tmp_path / "index").open("w+b") as target,
            pytest.raises(UnreadableError, match=reason),
        ):
            readers.index(listed.fileno(), lengths, diff_ids, target.fileno())


def test_the_user_is_looked_up_in_confinement(readers: Readers, tmp_path: Path) -> None:
    passwd, group = b"app:x:1000:1000::/home/app:/bin/sh\n", b"app:x:1000:\nextra:x:1001:app\n"
    content = tmp_path / "tar"
    content.write_bytes(b"padding" + passwd + group)
    with content.open("rb") as source:
        places = (
            (source.fileno(), Place(layer=0, offset=7, size=len(passwd))),
            (source.fileno(), Place(layer=0, offset=7 + len(passwd), size=len(group))),
        )
        found = readers.user("app", *places)
        assert found == ResolvedUser(uid=1000, gid=1000, groups=(1000, 1001), home="/home/app")
        assert readers.user("5:6", None, places[1]) == ResolvedUser(uid=5, gid=6, groups=(), home="/")
        with pytest.raises(UnreadableError, match="no such user"):
            readers.user("nobody", *places)
        with pytest.raises(UnreadableError, match="no such user"):
            readers.user("app", None, None)


def test_an_unknown_job_is_an_answer_too(readers: Readers) -> None:
    with pytest.raises(StoreError, match="internal error: KeyError"):
        readers._begin({"job": "dance"}, (), "dance")()
    with pytest.raises(UnreadableError, match="job is missing"):
        readers._begin({}, (), "nothing")()


def test_a_helper_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    readers = Readers.start(tmp_path)
    readers._process.kill()
    readers._process.wait()
    with pytest.raises(HostError, match="gone"):
        readers.user("0", None, None)
    readers.close()


def test_a_reader_that_cannot_be_confined_reads_nothing(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot be confined: .*No such file"):
        Readers.start(tmp_path / "none")


PROBE = """
import json, os, socket, sys, threading
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from runtime import confined
from runtime.linux import syscalls
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
channel = int(sys.argv[1])
server = socket.socket(fileno=channel)
filters = confined.job_filter()
confined.confine(channel, Path(sys.argv[2]), int(sys.argv[3]))

def probe():
    def tried(action):
        try:
            action()
        except OSError as error:
            return error.errno
        return 0

    found = {
        "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "root": tried(lambda: os.listdir("/")),
        "fds": [number for number in range(3, 4096) if tried(lambda: os.fstat(number)) == 0],
        "passwd": tried(lambda: os.open("/etc/passwd", os.O_RDONLY)),
        "write": tried(lambda: os.open("/x", os.O_WRONLY | os.O_CREAT)),
        "connect": tried(lambda: socket.socket().connect(("127.0.0.1", int(sys.argv[5])))),
        "root again": tried(lambda: os.setuid(0)),
        "no new privileges": libc.prctl(39, 0, 0, 0, 0), "dumpable": libc.prctl(3, 0, 0, 0, 0),
    }
    syscalls.set_filter(filters)
    thread = threading.Thread(target=lambda: found.update(thread=True)); thread.start(); thread.join()
    found |= {
        "fork": tried(os.fork), "exec": tried(lambda: os.execv("/bin/true", ["true"])), "socket": tried(socket.socket),
        "mount": tried(lambda: os.chroot("/")),
        "kill": tried(lambda: os.kill(1, 0)), "unshare": tried(lambda: syscalls.unshare(0x10000000)),
    }
    return found

try:
    found = probe()
except BaseException as error:
    found = {"broke": repr(error)}
server.send(json.dumps(found).encode())
"""


def test_a_reader_has_no_files_no_network_no_privilege(tmp_path: Path) -> None:
    need_root()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = str(Path(__file__).parent.parent.parent)
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        arguments = [str(theirs.fileno()), str(tmp_path), str(os.getpid()), here, port]
        secret = os.open("/etc/shadow", os.O_RDONLY)
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", PROBE, *arguments], pass_fds=(theirs.fileno(), secret), stderr=subprocess.PIPE
        )
        os.close(secret)
        channel = theirs.fileno()
        theirs.close()
        said = ours.recv(65536)
        assert process.stderr is not None
        errors = process.stderr.read()
        process.stderr.close()
        process.wait(30)
    assert said, errors.decode()
    found = json.loads(said)
    assert "broke" not in found, found
    assert found["uid"] == found["gid"] == [65534] * 3
    assert (found["groups"], found["fds"]) == ([], [channel])
    assert found["thread"] is True
    refused = {name: found[name] for name in ("root", "passwd", "write", "connect", "root again")}
    assert all(refused.values()), refused
    assert (found["no new privileges"], found["dumpable"]) == (1, 0)
    assert {found[name] for name in ("fork", "exec", "socket", "mount", "kill", "unshare")} == {1}, found


def test_an_image_that_was_made_elsewhere_reads_the_same(readers: Readers, tmp_path: Path) -> None:
    built = image([tar({"x/": b"", "x/y": "z"})], compression="zstd")
    assert built.layers[0].descriptor.media_type == MediaType.OCI_LAYER_ZSTD
    assert _read(readers, tmp_path, built.layers[0]).members == 2
