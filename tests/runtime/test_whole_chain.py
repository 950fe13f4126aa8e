"""Against the real registry with all its processes: pushed, refused, approved, pulled, started, revoked."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocispec.access import Access, Credentials
from ocispec.digest import Digest
from ocispec.platform import Platform
from ocispec.reference import Reference
from ocispec.remote import Remote
from ocispec.source import open_source
from policy.refusal import Refused
from runtime.admission import Proven, verify
from runtime.host import Host, RegistryAccount
from runtime.pull import Pulled, pull
from runtime.store import Store
from runtime.watch import Watcher
from tests.support import judging
from tests.support.images import BuiltImage, image
from tests.support.live import WholeRegistry, now, whole_registry
from tests.support.packages import os_release
from tests.support.tools import need_root

pytestmark = pytest.mark.root

AMD64 = Platform.parse("linux/amd64")
ACCOUNTS = {
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    "etc/group": b"app:x:1000:\n",
}
BASE = image([{"etc/": b"", "bin/": b"", "bin/true": b"#!", **ACCOUNTS, **os_release()}], compression="zstd")
APP = image([{"srv/": b"", "srv/app": b"1" * 100_000}], parent=BASE, entrypoint=("/bin/true",), user="app")


@pytest.fixture(scope="module")
def whole() -> Iterator[WholeRegistry]:
    need_root()
    with whole_registry() as running:
        running.publish()
        yield running


@pytest.fixture
def host(whole: WholeRegistry, tmp_path: Path) -> Host:
    credentials = Credentials(name="host", secret=whole.secrets["host"])
    account = RegistryAccount(registry=whole.address, credentials=credentials, plain_http=True)
    return Host.enrol(Store.open(tmp_path / "store"), whole.ring.envelope, account, now())


def _pusher(whole: WholeRegistry) -> Remote:
    credentials = Credentials(name="pusher", secret=whole.secrets["pusher"])
    return Remote(whole.address, Access(credentials=credentials, plain_http=True))


def _push(whole: WholeRegistry, built: BuiltImage, repository: str, tag: str) -> tuple[str, ...]:
    with _pusher(whole) as remote:
        remote.push_blob(repository, built.manifest.config, io.BytesIO(built.config.raw))
        for layer in built.layers:
            remote.push_blob(repository, layer.descriptor, io.BytesIO(layer.blob))
        return remote.push_manifest(repository, tag, built.manifest.raw, built.manifest.media_type).warnings


def _pull(host: Host, reference: Reference) -> Pulled | Refused:
    return pull(reference, host=host, clock=now, platform=AMD64)


def test_from_push_to_start_and_back(whole: WholeRegistry, host: Host) -> None:
    reference = Reference(registry=whole.address, repository="team/app", tag="1.0")
    (warning,) = _push(whole, APP, "team/app", "1.0")
    assert "quarantined" in warning or "denied" in warning
    with _pusher(whole) as remote:
        again = open_source(str(reference), connect=lambda _: remote, platform=AMD64)
        assert again.manifest == APP.manifest, "whoever pushed it may pull it back"
        assert remote.tags("team/app") == ("1.0",)

    refused = _pull(host, reference)
    assert isinstance(refused, Refused)
    assert refused.code in {"not-served", "DENIED"}
    pinned = replace(reference, tag=None, digest=APP.digest)
    refused = _pull(host, pinned)
    assert isinstance(refused, Refused)
    assert refused.code == "DENIED"
    assert refused.detail

    _push(whole, BASE, "team/base", "1.0")
    whole.approve("team/base", BASE, "base", whole.ring.alice, whole.ring.bob)
    whole.approve("team/app", APP, "application", whole.ring.team)
    whole.until("team/app", "1.0", "cleared")
    pulled = _pull(host, reference)
    assert isinstance(pulled, Pulled), pulled
    assert pulled.record.user.uid == 1000
    assert pulled.synced.fine, pulled.synced
    assert isinstance(_pull(host, pinned), Pulled)
    proven = verify(reference, host=host, now=now(), platform=AMD64)
    assert isinstance(proven, Proven), proven
    assert Digest.of(host.store.index(pulled.record.root_index).read_bytes()) == pulled.record.root_index

    watch = Watcher(host=host, watched=proven.watched(), clock=now, sync_every=0)
    assert watch() is None
    whole.revoke(2, digests=(BASE.digest, APP.digest))
    deadline = time.monotonic() + 60
    while (reason := watch()) is None and time.monotonic() < deadline:
        time.sleep(0.1)  # the registry's signer dates the new list first
    assert reason is not None
    assert reason.code == "revoked-digest"
    now_refused = verify(reference, host=host, now=now(), platform=AMD64)
    assert isinstance(now_refused, Refused)
    assert now_refused.code == "revoked-digest"
    assert isinstance(_pull(host, pinned), Refused)


def test_statements_come_as_the_registry_serves_them(whole: WholeRegistry, host: Host) -> None:
    synced = host.sync(now())
    assert synced.fine, synced
    number = host.state().revocations
    assert number is not None
    status, answer = whole.api("GET", "/api/v1/revocations", account="host")
    assert status == 200
    assert isinstance(answer, dict)
    listed = judging.wire_statement(json.dumps(answer["list"]).encode())
    assert getattr(listed, "number", None) == number.number
