"""Pulling: proven before, proven after, whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError, RemoteMissingError, SourceError, SpecError
from ocispec.platform import Platform
from policy import cosign
from policy.refusal import Refused
from policy.statements import Clearance, ResolvedUser
from policy.wire import predicate_type
from runtime.errors import HostError
from runtime.fetch import Progress
from runtime.host import Host
from runtime.pull import Pulled, pull, renew
from runtime.readers import UnreadableError
from tests.support.cleared import ClearedImage, ClearedRegistry, app_image, base_image
from tests.support.fakeregistry import Answer, Request
from tests.support.images import image, index, tar
from tests.support.tools import need, need_root
from tests.support.trust import DAY, NOW, revocation_list

pytestmark = pytest.mark.root

AMD64 = Platform.parse("linux/amd64")


@pytest.fixture
def registry() -> Iterator[ClearedRegistry]:
    need_root()
    with ClearedRegistry() as running:
        yield running


@pytest.fixture
def app(registry: ClearedRegistry) -> ClearedImage:
    return registry.clear(app_image(base_image()))


@pytest.fixture
def host(registry: ClearedRegistry, tmp_path: Path) -> Host:
    return registry.enrol(tmp_path / "store")


def _pull(registry: ClearedRegistry, host: Host, app: ClearedImage, **changes: object) -> Pulled | Refused:
    reference = changes.pop("reference", app.reference)
    return pull(reference, host=host, clock=registry.clock, platform=AMD64, access=registry.access, **changes)  # type: ignore[arg-type]  # values of several types


def _pulled(result: Pulled | Refused) -> Pulled:
    assert isinstance(result, Pulled), result
    return result


def _names(host: Host) -> set[str]:
    """Every file of the store but the host's own."""
    root = host.store.path
    return {
        str(path.relative_to(root))
        for folder in ("layers", "indexes", "images", "tags", "work")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def _blobs(registry: ClearedRegistry) -> list[Request]:
    return [request for request in registry.fake.requests if "/blobs/" in request.path]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_cleared_image_is_pulled_by_tag(registry: ClearedRegistry, host: Host, compression: str) -> None:
    built = app_image(base_image(compression=compression), compression=compression)
    app = registry.clear(built)
    pulled = _pulled(_pull(registry, host, app))
    assert pulled.record.manifest == built.digest
    assert pulled.record.root_index == app.facts.root_index
    assert pulled.record.user == ResolvedUser(uid=1000, gid=1000, groups=(1000, 1001), home="/home/app")
    assert pulled.verified.complete
    assert pulled.fetched == sum(layer.descriptor.size for layer in built.layers)
    for layer in built.layers:
        assert host.store.layer(layer.diff_id).read_bytes() == layer.tar
        assert host.store.layer(layer.diff_id).stat().st_mode & 0o7777 == 0o444
    assert Digest.of(host.store.index(app.facts.root_index).read_bytes()) == app.facts.root_index
    assert host.store.tag(app.reference) is not None
    assert not any(name.startswith("work/") for name in _names(host))


def test_what_is_there_is_not_fetched_again(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    seen: list[Progress] = []
    _pulled(_pull(registry, host, app, progress=seen.append))
    assert {(step.state) for step in seen} == {"fetching", "done"}
    again: list[Progress] = []
    assert _pulled(_pull(registry, host, app, progress=again.append)).fetched == 0
    assert [step.state for step in again] == ["there", "there"]
    other = registry.clear(app_image(base_image(), "another"), "team/other")
    pulled = _pulled(_pull(registry, host, other))
    assert pulled.fetched == other.built.layers[1].descriptor.size, "the base is shared"


def test_an_image_is_pulled_by_digest_without_a_tag_statement(
    registry: ClearedRegistry, host: Host, app: ClearedImage
) -> None:
    registry.fake.documents.pop("/api/v1/tags/1.0/team/app")
    assert _pulled(_pull(registry, host, app, reference=app.pinned)).record.manifest == app.built.digest
    refused = _pull(registry, host, app)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.subject) == ("not-there", str(app.reference))


def test_the_child_of_a_cleared_index_is_pulled(registry: ClearedRegistry, host: Host) -> None:
    amd64, arm64 = app_image(base_image()), image(platform="linux/arm64/v8")
    app = registry.clear(amd64, tag=None)
    both = index([amd64, arm64])
    registry.clear_index(both, "team/app", "2.0", amd64.digest)
    pulled = _pulled(_pull(registry, host, app, reference=replace(app.reference, tag="2.0")))
    assert (pulled.record.manifest, pulled.record.index) == (amd64.digest, both.digest)


def test_a_clearance_is_found_by_cosigns_tag_where_there_are_no_referrers(
    registry: ClearedRegistry, host: Host, app: ClearedImage
) -> None:
    registry.fake.referrers_api = False
    assert isinstance(_pull(registry, host, app), Refused)
    artifact = cosign.attestation_artifact(app.built.digest, [(app.envelope, predicate_type(Clearance))])
    for blob in artifact.blobs:
        registry.fake.blobs["team/app", str(blob.digest)] = blob.content
    registry.fake.put_manifest("team/app", artifact.manifest, artifact.media_type, artifact.tag)
    _pulled(_pull(registry, host, app))


# Refused, before a byte of a layer is fetched


def test_what_is_not_cleared_is_not_fetched(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    registry.detach("team/app")
    refused = _pull(registry, host, app)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.subject) == ("no-clearance", f"{registry.fake.host}/team/app@{app.built.digest}")
    layers = {str(layer.descriptor.digest) for layer in app.built.layers}
    assert not [request for request in _blobs(registry) if request.path.rpartition("/")[2] in layers]
    assert _names(host) == set()


def test_a_tag_under_which_nothing_is_cleared_is_refused(
    registry: ClearedRegistry, host: Host, app: ClearedImage
) -> None:
    registry.serve_tag_envelope("team/app", "1.0", app.built.digest, None)
    refused = _pull(registry, host, app)
    assert isinstance(refused, Refused)
    assert refused.code == "not-served"


def test_a_quarantined_image_is_refused_with_the_registrys_reason(
    registry: ClearedRegistry, host: Host, app: ClearedImage
) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"vulnerable-package: pkg:deb/debian/openssl"}]}'
    registry.fake.hook(lambda request: Answer(403, body) if "/manifests/" in request.path else None)
    refused = _pull(registry, host, app)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.detail) == ("DENIED", "vulnerable-package: pkg:deb/debian/openssl")


def test_an_image_for_another_platform_is_refused(registry: ClearedRegistry, host: Host) -> None:
    app = registry.clear(app_image(base_image(), platform="linux/arm64/v8"))
    refused = _pull(registry, host, app)
    assert isinstance(refused, Refused)
    assert refused.code == "other-platform"


def test_a_host_without_a_list_pulls_nothing(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    document = registry.fake.documents.pop("/api/v1/revocations")
    refused = _pull(registry, host, app)
    assert isinstance(refused, Refused)
    assert refused.code == "no-revocation-list"
    registry.fake.documents["/api/v1/revocations"] = document
    _pulled(_pull(registry, host, app))


def test_a_registry_that_resolves_the_user_to_root_is_refused(registry: ClearedRegistry, host: Host) -> None:
    built = app_image(base_image())
    facts = registry.facts(built, user=ResolvedUser(uid=0, gid=0, groups=(0,), home="/root"))
    refused = _pull(registry, host, registry.clear(built, facts=facts))
    assert isinstance(refused, Refused)
    assert refused.code == "other-user"
    assert not any(name.startswith(("images/", "indexes/")) for name in _names(host))


# Broken, and nothing lost or half-written


def _break_layer(registry: ClearedRegistry, app: ClearedImage, answer: Answer) -> None:
    path = f"/v2/team/app/blobs/{app.built.layers[1].descriptor.digest}"
    registry.fake.hook(lambda request: answer if request.path == path else None)


def _only_the_base(host: Host, app: ClearedImage) -> None:
    names = _names(host)
    assert names <= {f"layers/{app.built.diff_ids[0].hex}.tar"}
    assert not any(name.startswith("work/") for name in names)


def test_a_layer_of_another_digest_is_refused_by_name(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    layer = app.built.layers[1]
    changed = bytes([layer.blob[0] ^ 1]) + layer.blob[1:]
    _break_layer(registry, app, Answer(200, changed))
    with pytest.raises(UnreadableError, match=f"layer {layer.descriptor.digest}: "):
        _pull(registry, host, app)
    _only_the_base(host, app)
    registry.fake.unhook()
    assert _pulled(_pull(registry, host, app)).fetched >= layer.descriptor.size


def test_a_truncated_layer_is_refused_by_name(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    layer = app.built.layers[1]
    _break_layer(registry, app, Answer(200, layer.blob[:-10]))
    with pytest.raises(UnreadableError, match=rf"layer {layer.descriptor.digest}: .*(cut short|mismatch)"):
        _pull(registry, host, app)
    _only_the_base(host, app)


def test_a_layer_with_something_behind_it_is_refused(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    _break_layer(registry, app, Answer(200, app.built.layers[1].blob + b"x" * 1_000_000))
    with pytest.raises(UnreadableError, match="more than"):
        _pull(registry, host, app)
    _only_the_base(host, app)


def test_a_connection_that_breaks_is_taken_up_again(registry: ClearedRegistry, host: Host) -> None:
    app = registry.clear(app_image(base_image(compression="none"), compression="none", cmd=("x" * 10,)))
    cuts = iter([700, 1500])

    def cut(request: Request) -> Answer | None:
        layer = app.built.layers[1]
        if not request.path.endswith(str(layer.descriptor.digest)) or (at := next(cuts, None)) is None:
            return None
        usual = registry.fake._blob(request, "team/app", str(layer.descriptor.digest))
        return Answer(usual.status, usual.body, usual.headers, cut=at)

    registry.fake.hook(cut)
    assert _pulled(_pull(registry, host, app)).record.manifest == app.built.digest
    ranges = [request.headers.get("range") for request in _blobs(registry) if "range" in request.headers]
    assert ranges == ["bytes=700-", "bytes=2200-"]


def test_a_registry_that_is_gone_for_good_is_one_clear_line(
    registry: ClearedRegistry, host: Host, app: ClearedImage
) -> None:
    _break_layer(registry, app, Answer(200, b"x" * 1000, cut=10))
    with pytest.raises(SourceError, match="the answer broke off"):
        _pull(registry, host, app)
    _only_the_base(host, app)
    registry.fake.unhook()
    _pulled(_pull(registry, host, app))


def test_a_layer_that_is_missing_stops_the_others(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    del registry.fake.blobs["team/app", str(app.built.layers[0].descriptor.digest)]
    with pytest.raises(RemoteMissingError, match="BLOB_UNKNOWN"):
        _pull(registry, host, app)
    assert not any(name.startswith(("images/", "indexes/", "work/")) for name in _names(host))


def test_a_config_or_manifest_under_another_digest_is_refused(
    registry: ClearedRegistry, host: Host, app: ClearedImage
) -> None:
    other = app_image(base_image(), "other")
    registry.fake.manifests["team/app", str(app.built.digest)] = (other.manifest.media_type, other.manifest.raw)
    with pytest.raises(DigestMismatchError, match=f"want {app.built.digest}"):
        _pull(registry, host, app)
    registry.fake.add(app.built, "team/app")
    registry.fake.blobs["team/app", str(app.built.config.digest)] = other.config.raw
    with pytest.raises(DigestMismatchError, match=str(app.built.config.digest)):
        _pull(registry, host, app)


def test_a_broken_tar_is_refused_with_its_repair(registry: ClearedRegistry, host: Host) -> None:
    broken = image([base_image().layers[0].tar, tar({"../../etc/passwd": b"x"})], entrypoint=("/bin/true",))
    app = registry.clear(broken, facts=registry.claimed(broken, Digest.of(b"whatever")))
    with pytest.raises(UnreadableError, match=r"'\.\.' part") as caught:
        _pull(registry, host, app)
    assert caught.value.repair
    _only_the_base(host, app)


ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from ocispec.reference import Reference
from runtime.host import Host
from runtime.pull import pull
from runtime.store import Store
from tests.support.trust import NOW

enrolled, small = sys.argv[1:3]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k,mode=700", "none", small], check=True)
subprocess.run(["cp", "-a", enrolled, f"{small}/store"], check=True)
store = Store.open(Path(small) / "store")
try:
    print(pull(Reference.parse(sys.argv[3]), host=Host.open(store), clock=lambda: NOW))
except Exception as error:
    print(type(error).__name__, error)
print(sorted(str(path.name) for path in store.path.glob("*/*") if path.parent.name not in ("host", "listings")))
"""


def test_a_full_disk_is_one_clear_line_and_nothing_is_half_written(registry: ClearedRegistry, tmp_path: Path) -> None:
    app = registry.clear(app_image(base_image(), os.urandom(200).hex(), compression="none"))
    host = registry.enrol(tmp_path / "store")
    (tmp_path / "small").mkdir()
    arguments = [str(host.store.path), str(tmp_path / "small"), str(app.reference)]
    command = [need("unshare"), "-m", "--propagation", "private", sys.executable, "-c", ON_A_SMALL_DISK, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    failure, left = done.stdout.splitlines()
    assert failure == f"StoreError layer {app.built.layers[1].descriptor.digest}: disk full"
    assert left in ("[]", str([f"{app.built.diff_ids[0].hex}.tar"]))


def test_a_host_without_root_pulls_nothing(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    host.store.empty.rmdir()
    with pytest.raises(HostError, match="cannot be confined"):
        _pull(registry, host, app)


# What was damaged is mended by pulling again


def test_a_layer_that_changed_is_fetched_again(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    _pulled(_pull(registry, host, app))
    path = host.store.layer(app.built.diff_ids[1])
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    path.chmod(0o444)
    assert _pulled(_pull(registry, host, app)).fetched == app.built.layers[1].descriptor.size
    assert path.read_bytes() == app.built.layers[1].tar


@pytest.mark.parametrize("damage", ["lost", "changed", "of another layer"])
def test_a_listing_is_no_evidence(registry: ClearedRegistry, host: Host, app: ClearedImage, damage: str) -> None:
    _pulled(_pull(registry, host, app))
    listings = [host.store.path / "listings" / diff_id.hex for diff_id in app.built.diff_ids]
    right = listings[1].read_bytes()
    listings[1].chmod(0o600)
    match damage:
        case "lost":
            listings[1].unlink()
        case "changed":
            listings[1].write_bytes(right[:-3])
        case _:
            listings[1].write_bytes(listings[0].read_bytes())
    host.store.index(app.facts.root_index).unlink()
    pulled = _pulled(_pull(registry, host, app))
    assert pulled.fetched == 0
    assert Digest.of(host.store.index(app.facts.root_index).read_bytes()) == app.facts.root_index
    assert listings[1].read_bytes() == right


# Renewing


def test_a_clearance_is_renewed(registry: ClearedRegistry, host: Host, app: ClearedImage) -> None:
    record = _pulled(_pull(registry, host, app)).record
    assert renew(record, host=host, now=NOW, access=registry.access) is False
    registry.now = NOW + 4 * DAY
    registry.revoke(revocation_list(8))
    registry.clear(app.built)
    host.sync(registry.now)
    before = host.store.clearance(record)
    assert renew(record, host=host, now=registry.now, access=registry.access) is True
    assert host.store.clearance(record) != before
    registry.detach("team/app")
    refused = renew(record, host=host, now=registry.now, access=registry.access)
    assert isinstance(refused, Refused)
    assert refused.code == "no-clearance"
    registry.fake.hook(lambda request: Answer(500))
    with pytest.raises(SpecError):
        renew(record, host=host, now=registry.now, access=registry.access)
