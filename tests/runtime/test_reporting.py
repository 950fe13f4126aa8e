"""What a host tells registries that it runs; the registry keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.access import Access, Credentials
from ocispec.digest import Digest
from runtime.host import Host, RegistryAccount
from runtime.model import ContainerId, Shown
from runtime.record import Container, Status
from runtime.reporting import Image, report, running_images
from runtime.store import Store
from tests.support.live import WholeRegistry, now, whole_registry

DIGEST = Digest.of(b"manifest")


@pytest.fixture(scope="module")
def whole() -> Iterator[WholeRegistry]:
    """A registry."""
    with whole_registry() as live:
        live.publish()
        yield live


@pytest.fixture
def host(whole: WholeRegistry, tmp_path: Path) -> Host:
    """A host that is enrolled with it."""
    account = RegistryAccount(
        registry=whole.address,
        credentials=Credentials(name="host", secret=whole.secrets["host"]),
        ca="",
        plain_http=True,
    )
    return Host.enrol(Store.open(tmp_path / "store"), whole.ring.envelope, account, now())


def seen(whole: WholeRegistry) -> list[tuple[str, str]]:
    """Which hosts run the image where, by the registry."""
    status, answer = whole.api("GET", f"/api/v1/running?digest={DIGEST}")
    assert status == 200
    assert isinstance(answer, dict)
    return [(each["host"], each["repository"]) for each in answer["running"]]


def test_the_registry_knows_what_runs_until_it_is_told_otherwise(whole: WholeRegistry, host: Host) -> None:
    images: list[Image] = [(whole.address, "team/app", DIGEST), ("other.test:5000", "team/app", DIGEST)]
    (told,) = report(host, images)
    assert (told.registry, told.images, told.error) == (whole.address, 1, "")
    assert seen(whole) == [("host", "team/app")]
    report(host, [])
    assert seen(whole) == []


def test_a_registry_that_does_not_answer_is_named(whole: WholeRegistry, host: Host) -> None:
    whole.stop()
    try:
        (told,) = report(host, [], access=Access(timeout=1.0, attempts=1))
        assert told.error
    finally:
        whole.start()


def container(name: str, image: str, status: Status = "running", *, digest: str = str(DIGEST)) -> Container:
    """A container as the state folder has it."""
    shown = Shown(image=image, digest=digest)
    return Container(name=ContainerId(name), status=status, created="2026-11-24T10:00:00Z", shown=shown)


def test_each_image_that_runs_counts_once() -> None:
    found = running_images(
        [
            container("a", "reg.test:5000/shop/web:1"),
            container("b", "reg.test:5000/shop/web:2"),
            container("c", "reg.test:5000/shop/gone:1", "exited"),
            container("d", "oci:folder"),
            container("e", "reg.test:5000/shop/other:1", digest=""),
        ]
    )
    assert found == (("reg.test:5000", "shop/web", DIGEST),)
