"""A worker that is killed between two steps: its job is taken again, and nothing is half-written."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.manifest import Manifest, parse_manifest
from policy.cosign import attestation_tag, signature_tag
from policy.model import State
from registry.audit import read, verify
from registry.catalogue.manifests import manifest_by_tag
from registry.judge.jobs import CLAIM_SECONDS
from registry.judge.judge import FAULT_VARIABLE
from tests.support.bench import Bench
from tests.support.images import BuiltImage, image
from tests.support.trust import NOW, REGISTRY, Keyring, keyring

REPOSITORY = "team/app"
BUILT = image([{"bin/": b"", "bin/sh": b"#!"}])


def _die_at(folder: Path, database: str, ring: Keyring, step: str) -> None:
    """Let a worker of its own process work until it is killed after `step`."""
    trigger = folder / "fault"
    trigger.touch()
    pid = os.fork()
    if pid == 0:
        os.environ[FAULT_VARIABLE] = f"{step}={trigger}"
        try:
            Bench(folder, database, ring=ring).settle()
        finally:
            os._exit(9)  # it was to be killed
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not trigger.exists()


def _artifacts(bench: Bench, built: BuiltImage) -> tuple[bool, bool]:
    with bench.catalogue.read() as conn:
        attached = manifest_by_tag(conn, REPOSITORY, attestation_tag(built.digest), served=False)
        signed = manifest_by_tag(conn, REPOSITORY, signature_tag(built.digest), served=False)
    for found in (attached, signed):
        manifest = parse_manifest(found.content, found.media_type) if found is not None else None
        for layer in manifest.layers if isinstance(manifest, Manifest) else ():
            assert bench.store.size(layer.digest) == layer.size
    return attached is not None, signed is not None


@pytest.mark.parametrize("step", ["layers", "assembly", "evidence", "decision", "commit", "committed"])
def test_killed_worker_leaves_nothing_half_written(tmp_path: Path, database: str, step: str) -> None:
    ring = keyring()
    bench = Bench(tmp_path, database, ring=ring)
    bench.publish()
    bench.settle()
    bench.approve(REPOSITORY, BUILT, "base", ring.alice, ring.bob)
    bench.push(REPOSITORY, BUILT, "1")
    bench.close()

    _die_at(tmp_path, database, ring, step)

    bench = Bench(tmp_path, database, ring=ring)
    before = bench.state(REPOSITORY, BUILT.digest)
    if step == "committed":
        assert before is State.CLEARED
        assert _artifacts(bench, BUILT) == (True, True)
    else:
        assert before is State.QUARANTINED
        assert _artifacts(bench, BUILT) == (False, False)
        assert bench.tag(REPOSITORY, "1").served is None
    bench.now = NOW + timedelta(seconds=CLAIM_SECONDS + 1)
    bench.settle()
    assert bench.state(REPOSITORY, BUILT.digest) is State.CLEARED
    assert _artifacts(bench, BUILT) == (True, True)
    assert bench.tag(REPOSITORY, "1").served == BUILT.digest
    with bench.catalogue.read() as conn:
        report = verify(
            read(conn, after=0, limit=1000),
            [],
            verify_envelope=ring.trust.verifier(bench.now),
            registry=REGISTRY,
        )
    assert report.sound
    bench.close()
