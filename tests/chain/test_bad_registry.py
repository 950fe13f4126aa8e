"""Bad input from the network, a full disk, a damaged store, and a registry that is killed in the middle."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ocispec.digest import Digest
from policy.seal import seal
from policy.statements import PolicyStatement
from tests.chain.clear_line import Case, check, one_line
from tests.chain.stage import POLICY, Chain, Desk, command_line, descendants, tree
from tests.support.images import BuiltImage, image
from tests.support.layers import member
from tests.support.live import now
from tests.support.processes import wait_until_closed
from tests.support.tools import need

pytestmark = pytest.mark.root


@pytest.fixture
def host(chain: Chain) -> Iterator[Desk]:
    """A host of its own, enrolled, with the accounts of everybody."""
    desk = Desk.at(chain.desk.folder / f"host-{time.monotonic_ns()}", PRATIQUE_CONFIG=str(chain.desk.folder / "config"))
    chain.enrol(desk)
    yield desk
    desk.pratique("rm", "--force", "web")


def store_of(desk: Desk) -> dict[str, str]:
    """What a host has of images: no memory of what it was told, and no lock."""
    root = str(desk.store)
    apart = (f"{root}/host", f"{root}/lock", f"{root}/empty")
    return {path: what for path, what in tree(desk.store).items() if not path.startswith(apart)}


def whole(desk: Desk, *images: BuiltImage) -> None:
    """What has a name in the store is what its name says; nothing is unfinished."""
    assert list((desk.store / "work").iterdir()) == []
    known = {layer.diff_id.hex: layer.tar for built in images for layer in built.layers}
    for path in (desk.store / "layers").iterdir():
        assert path.read_bytes() == known[path.stem]
    for path in (desk.store / "indexes").iterdir():
        assert Digest.of(path.read_bytes()).hex == path.name


# ---- what a registry sends -----------------------------------------------------------------------------------------


def stored(chain: Chain, digest: Digest) -> Path:
    """The file in which the registry keeps a blob."""
    (path,) = (path for path in chain.live.settings.store_folder.rglob(f"*{digest.hex}*") if path.stat().st_size)
    return path


@contextmanager
def spoilt(chain: Chain, digest: Digest, spoil: Callable[[bytes], bytes]) -> Iterator[None]:
    """The registry's own copy of a blob is another one for a while."""
    path = stored(chain, digest)
    right = path.read_bytes()
    path.write_bytes(spoil(right))
    try:
        yield
    finally:
        path.write_bytes(right)


def flip(content: bytes) -> bytes:
    """Another bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-30], flip], ids=["truncated", "one-bit-flipped"])
def test_a_layer_that_is_not_what_was_cleared(
    chain: Chain, app: str, host: Desk, spoil: Callable[[bytes], bytes]
) -> None:
    layer = chain.app.layers[-1].descriptor.digest
    with spoilt(chain, layer, spoil):
        for flags in ((), ("--debug",)):
            broken = host.pratique(*flags, "pull", app, "--quiet")
            if flags:
                assert broken.code == 1
                assert "Traceback" in broken.err
            else:
                one_line(broken, 1, f"{layer}: ")
            whole(host, chain.app)
            assert not [path for path in store_of(host) if "/images/" in path or "/indexes/" in path]
    host.fine("pull", app)
    whole(host, chain.app)


def test_a_broken_tar_is_taken_and_never_cleared(chain: Chain, host: Desk) -> None:
    """A push never fails for what is in a layer; who reads it is told what is wrong with it."""
    broken = image([chain.base.layers[0].tar, member(b"srv/a", data=bytes(4000))[:2048]])
    reference = chain.push(broken, "bad/tar")
    digest = str(broken.layers[-1].descriptor.digest)
    standing = chain.desk.pratique("status", reference, "--wait", "20", "--account", "dev")
    assert standing.code == 3, standing
    assert digest in standing.out or str(broken.diff_ids[-1]) in standing.out, standing
    says = (f"layer {digest}: ", "member b'srv/a'")
    read = ("--account", "dev", "--level", "base", *chain.keys("alice"))
    for name, words in {"approve": ("approve", reference, *read), "scan": ("scan", reference)}.items():
        check(Case(name=name, prepare=lambda _, words=words: words, says=says), host)  # type: ignore[misc]  # bound now


def test_what_a_registry_does_not_know_or_take(chain: Chain, host: Desk) -> None:
    statement = PolicyStatement(
        name="default", version=9, document=POLICY.read_bytes() + b"\nfrobnicate: 1\n", issued=now()
    )
    (host.folder / "signed").write_bytes(seal(statement, chain.live.ring.alice, chain.live.ring.bob))
    nothing = chain.name("no/such")
    wrong = ("login", chain.address, "--plain-http", "--account", "dev")
    for case in (
        Case(
            name="policy", prepare=lambda _: ("policy", "publish", chain.address, "signed"), says=("signed: policy: ",)
        ),
        Case(name="scan", prepare=lambda _: ("scan", nothing), says=("no/such", "MANIFEST_UNKNOWN")),
        Case(name="status", prepare=lambda _: ("status", nothing), says=("no/such",)),
        Case(
            name="secret",
            prepare=lambda _: wrong,
            send="wrong\n",
            says=("unknown account or wrong secret (account 'dev')",),
        ),
    ):
        check(case, host)
    refused = host.pratique("pull", nothing, "--quiet")
    assert (refused.code, refused.out) == (3, ""), refused
    assert refused.err.splitlines()[:2] == ["refused: not-there", f"  object: {nothing}"], refused


# ---- what this host keeps ------------------------------------------------------------------------------------------


def test_a_damaged_record_is_refused_and_mended_by_a_pull(chain: Chain, app: str, host: Desk) -> None:
    """What the host has proven nothing of is a refusal, with its code and object; a pull writes the record anew."""
    host.fine("pull", app)
    (record,) = (host.store / "images").glob("*/record")
    right = record.read_bytes()
    record.write_bytes(right[: len(right) // 2])
    for code, words in ((3, ("verify", app)), (125, ("run", "--pull", "never", app))):
        refused = host.pratique(*words)
        assert (refused.code, refused.out) == (code, ""), refused
        assert refused.err.splitlines()[:2] == ["refused: store-unusable", f"  object: {app}"], refused
        assert f"record {record.parent.name}: " in refused.err, refused
    host.fine("pull", app)
    assert json.loads(record.read_bytes()).keys() == json.loads(right).keys()
    host.fine("verify", app)


def test_a_damaged_trust_is_believed_by_no_verb(chain: Chain, app: str, host: Desk) -> None:
    (trust,) = (host.store / "host").glob("trust*")
    trust.write_bytes(trust.read_bytes()[:100])
    for code, words in ((3, ("verify", app)), (125, ("run", app)), (3, ("pull", app))):
        refused = host.pratique(*words)
        assert (refused.code, refused.out) == (code, ""), refused
        assert refused.err.splitlines()[:2] == ["refused: malformed", "  object: trust.json"], refused
        assert "not JSON" in refused.err, refused
    check(Case(name="show", prepare=lambda _: ("host", "show"), says=("trust.json", "not JSON")), host)


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=700k,mode=700 none "$1" && cp -a "$0/." "$1" || exit 99
export PRATIQUE_STORE="$1"
shift
"$@"
echo "code $?"
find "$PRATIQUE_STORE" -type f | grep -v "/host/\\|/lock$"
mount -o remount,size=64m "$PRATIQUE_STORE" || exit 99
"$@" >/dev/null
echo "code $?"
"""


@pytest.mark.parametrize("flags", [(), ("--debug",)], ids=["plain", "debug"])
def test_a_full_disk_while_pulling(chain: Chain, app: str, host: Desk, flags: tuple[str, ...]) -> None:
    small = host.folder / "small"
    small.mkdir()
    command = (*command_line(), *flags, "pull", app, "--quiet")
    private = (need("unshare"), "-m", "--propagation", "private", "sh", "-c", ON_A_SMALL_DISK, host.store, small)
    done = host.run(*private, *command)
    first, *left, last = done.out.splitlines()
    assert (first, last) == ("code 1", "code 0"), done
    assert [path for path in left if "/layers/" not in path and "/listings/" not in path] == []
    message = done.err.splitlines()[-1] if flags else done.err.strip()
    base = chain.base.layers[0].descriptor.digest
    assert message == f"pratique: layer {base}: disk full", done
    assert ("Traceback" in done.err) == bool(flags)


# ---- the registry is killed ----------------------------------------------------------------------------------------


def kill(chain: Chain) -> None:
    """SIGKILL to the registry, every process of it."""
    process = chain.live.process
    assert process is not None
    assert process.stdout is not None
    for pid in (process.pid, *descendants(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    chain.live.process = None
    wait_until_closed(chain.live.port)


def grows(folder: Path, size: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until some file below `folder` has more than `size` bytes."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            if any(path.is_file() and path.stat().st_size > size for path in folder.rglob("*")):
                return
    raise AssertionError(f"nothing grew in {folder}: {process.communicate()}")


@pytest.fixture(scope="module")
def large(chain: Chain) -> BuiltImage:
    """An application with a layer that takes a moment."""
    noise = {"srv/noise": random.Random(3).randbytes(48 << 20)}
    return image([noise], parent=chain.app, compression="zstd")  # skopeo would compress it, if it were not


def test_the_registry_is_killed_while_an_image_is_pushed(chain: Chain, app: str, host: Desk, large: BuiltImage) -> None:
    layout = large.write_layout(host.folder / "layout", "t")
    reference = chain.name("killed/app")
    login = f"--dest-creds=dev:{chain.live.secrets['dev']}"
    pushing = (need("skopeo"), "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", login)
    with subprocess.Popen(
        [*pushing, f"oci:{layout}:t", f"docker://{reference}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as push:
        grows(chain.live.settings.store_folder / "uploads", 4 << 20, push)
        kill(chain)
        one_line(host.pratique("pull", app, "--quiet"), 1, chain.address, "no connection")
        whole(host)
        assert push.wait(60) != 0
    chain.live.start()
    assert chain.desk.pratique("status", app, "--account", "dev").code == 0, "what was acknowledged is there"
    one_line(host.pratique("status", reference, "--account", "dev"), 1, "killed/app")
    for digest, content in large.blobs.items():
        answer = chain.live.request("GET", f"/v2/killed/app/blobs/{digest}", account="dev")
        assert answer.status == 404 or answer.body == content
    host.fine("pull", app)
    chain.push(large, "killed/app")
    chain.approve_top(reference, 2)
    chain.cleared(reference)


def test_the_registry_is_killed_while_an_image_is_pulled(chain: Chain, host: Desk, large: BuiltImage) -> None:
    """The pull goes on when the registry is back. (The image was pushed by the test before.)"""
    reference = chain.name("killed/app")
    with host.start("pull", reference, "--quiet") as pull:
        grows(host.store / "work", 1 << 20, pull)
        kill(chain)
        assert not list((host.store / "images").iterdir())
        chain.live.start()
        out, err = pull.communicate(timeout=90)
    assert (pull.returncode, err) == (0, b""), (out, err)
    whole(host, large)
    host.fine("verify", reference)


def test_a_pull_is_killed_and_the_next_one_goes_on(chain: Chain, host: Desk, large: BuiltImage) -> None:
    reference = chain.name("killed/app")
    with host.start("pull", reference, "--quiet") as pull:
        grows(host.store / "work", 4 << 20, pull)
        pull.kill()
        pull.communicate()
    assert not list((host.store / "images").iterdir())
    there = {path.stem for path in (host.store / "layers").iterdir()}
    missing = [layer.descriptor.size for layer in large.layers if layer.diff_id.hex not in there]
    assert json.loads(host.fine("pull", reference, "--json"))["fetched_bytes"] == sum(missing)
    whole(host, large)
    host.fine("verify", reference)
