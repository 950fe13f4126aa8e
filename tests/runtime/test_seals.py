"""What was hashed once and not touched since; and what was changed beneath the file system, where no seal sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.digest import Digest
from policy.refusal import Refused
from runtime import hashing
from runtime.admission import Proven
from runtime.errors import StoreError
from runtime.ownfiles import replace_file
from runtime.rehash import rehash
from runtime.seals import MAX_AGE, QUIET, SECOND, Seals
from runtime.settings import Depth, HostSettings
from runtime.watch import Watcher
from tests.runtime.beneath import Disk
from tests.support.ready import Ready, ready
from tests.support.tools import need_root

CONTENT = b"a layer" * 10_000
DIGEST = Digest.of(CONTENT)


class Sealed:
    """A file with a seal, and a clock that begins when the file has been quiet for long enough."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "file"
        self.file.write_bytes(CONTENT)
        (folder / "seals").mkdir()
        self.now = self.file.stat().st_ctime_ns + QUIET
        self.seals = Seals(folder / "seals", clock=lambda: self.now)
        self.path = folder / "seals" / DIGEST.hex

    def age(self) -> int | None:
        """What the seal says now."""
        with self.file.open("rb") as file:
            return self.seals.age(file.fileno(), DIGEST)

    def hash(self, *, on_disk: bool = False) -> Digest:
        """Hash the file, which seals it."""
        with self.file.open("rb") as file:
            return self.seals.hash(file.fileno(), DIGEST, on_disk=on_disk)

    def prove(self) -> Digest:
        """Prove the file."""
        with self.file.open("rb") as file:
            return self.seals.prove([(file.fileno(), DIGEST)])[0]


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    made = Sealed(tmp_path)
    assert made.age() is None
    assert made.hash() == DIGEST
    assert made.age() == 0
    return made


def _written(sealed: Sealed) -> None:
    sealed.file.write_bytes(CONTENT[::-1])


def _written_and_dated_back(sealed: Sealed) -> None:
    before = sealed.file.stat()
    sealed.file.write_bytes(CONTENT[::-1])
    os.utime(sealed.file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _another_file(sealed: Sealed) -> None:
    other = sealed.file.with_name("other")
    other.write_bytes(CONTENT)
    other.replace(sealed.file)


def _a_day_later(sealed: Sealed) -> None:
    sealed.now += MAX_AGE + 1


def _clock_back(sealed: Sealed) -> None:
    sealed.now -= SECOND


def _cut_short(sealed: Sealed) -> None:
    replace_file(sealed.path, sealed.path.read_bytes()[:-1])


def _of_another(sealed: Sealed) -> None:
    replace_file(sealed.path, sealed.path.read_bytes().replace(DIGEST.hex.encode(), Digest.of(b"x").hex.encode()))


def _nonsense(sealed: Sealed) -> None:
    replace_file(sealed.path, b"\xff" * 2000)


def _no_number(sealed: Sealed) -> None:
    replace_file(sealed.path, sealed.path.read_bytes().rpartition(b" ")[0] + b" soon\n")


def _anybodys(sealed: Sealed) -> None:
    sealed.path.chmod(0o666)


def _a_link(sealed: Sealed) -> None:
    moved = sealed.path.rename(sealed.path.with_name("moved"))
    sealed.path.symlink_to(moved)


WAYS: list[Callable[[Sealed], None]] = [
    _written,
    _written_and_dated_back,
    _another_file,
    _a_day_later,
    _clock_back,
    _cut_short,
    _of_another,
    _nonsense,
    _no_number,
    _anybodys,
    _a_link,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_seal_that_does_not_fit_counts_for_nothing(sealed: Sealed, way: Callable[[Sealed], None]) -> None:
    way(sealed)
    assert sealed.age() is None
    assert sealed.prove() == Digest.of(sealed.file.read_bytes()), "it was hashed"


def test_a_file_that_is_sealed_is_not_read(sealed: Sealed) -> None:
    with sealed.file.open("rb") as file:
        assert sealed.seals.prove([(file.fileno(), DIGEST)]) == [DIGEST]
        assert file.tell() == 0
    before = sealed.path.stat()
    assert sealed.prove() == DIGEST
    assert sealed.path.stat().st_ino == before.st_ino, "its seal was not written again"


def test_what_is_not_what_it_should_be_loses_its_seal(sealed: Sealed) -> None:
    _written(sealed)
    sealed.now = time.time_ns() + QUIET
    assert sealed.hash() == Digest.of(CONTENT[::-1])
    assert not sealed.path.exists()


def test_a_file_that_changed_just_now_is_not_sealed(sealed: Sealed) -> None:
    sealed.file.write_bytes(CONTENT)
    sealed.now = sealed.file.stat().st_ctime_ns + QUIET - 1
    assert sealed.hash() == DIGEST
    assert sealed.age() is None
    sealed.now += 1
    assert sealed.hash() == DIGEST
    assert sealed.age() == 0


def test_a_file_that_changes_while_it_is_hashed_is_not_sealed(sealed: Sealed) -> None:
    ticks = iter([sealed.now])

    def clock() -> int:
        sealed.file.chmod(0o400)  # between the look before and the look after
        return next(ticks)

    sealed.seals.drop(DIGEST)
    with sealed.file.open("rb") as file:
        began = Seals(sealed.seals.folder, clock=clock)
        os.fchmod(file.fileno(), 0o600)
        sealed.now = time.time_ns() + QUIET
        assert began.hash(file.fileno(), DIGEST) == DIGEST
    assert not sealed.path.exists()


def test_several_files_are_proven_in_their_order(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(7)]
    files = [tmp_path / str(number) for number in range(7)]
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    (tmp_path / "seals").mkdir()
    seals = Seals(tmp_path / "seals", clock=lambda: time.time_ns() + QUIET)
    digests = [Digest.of(content) for content in contents]
    fds = [os.open(path, os.O_RDONLY) for path in files]
    try:
        asked = list(zip(fds, digests, strict=True))
        assert seals.prove(asked[::2]) == digests[::2]
        assert len(list(seals.folder.iterdir())) == 4
        assert seals.prove(asked) == digests
        wrong = [(fd, digest) for fd, digest in zip(fds, digests[1:] + digests[:1], strict=True)]
        assert seals.prove(wrong) == digests
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096, 4 * 1024 * 1024, 9 * 1024 * 1024 + 17])
def test_what_is_on_the_disk_is_hashed_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    content = os.urandom(size)
    path.write_bytes(content)
    with path.open("rb") as file:
        assert hashing.digest_on_disk(file.fileno(), "sha256") == Digest.of(content)
        assert hashing.digest_on_disk(file.fileno(), "sha512").algorithm == "sha512"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for work in (hashing.digest_of, hashing.digest_on_disk):
            with pytest.raises(OSError, match="directory"):
                work(fd, "sha256")
        with pytest.raises(OSError, match="directory"):
            hashing.at_once(lambda number: hashing.digest_of(number, "sha256"), [fd] * 5)
    finally:
        os.close(fd)


# A host's setting


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Ready]:
    need_root()
    with ready(tmp_path / "store") as made:
        yield made


def test_the_setting_is_sealed_until_somebody_chooses(scene: Ready) -> None:
    assert scene.host.settings() == HostSettings(depth=Depth.SEALED)
    scene.host.set(HostSettings(depth=Depth.ALWAYS))
    assert scene.host.settings().depth is Depth.ALWAYS
    scene.must_start()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: replace_file(path, b"{}"),
        lambda path: replace_file(path, b'{"depth":"never","version":"1"}'),
        lambda path: replace_file(path, b'{"depth":"sealed","version":"2"}'),
        lambda path: replace_file(path, b'{"depth":"sealed","more":"x","version":"1"}'),
        lambda path: path.chmod(0o666),
    ],
)
def test_settings_that_cannot_be_read_start_nothing(scene: Ready, damage: Callable[[Path], object]) -> None:
    scene.host.set(HostSettings())
    scene.must_start()
    damage(scene.host.store.host / "settings")
    refused = scene.start()
    assert isinstance(refused, Refused)
    assert refused.code == "store-unusable"


def _quiet(scene: Ready) -> None:
    """Wait until what was pulled may be sealed, and start once: it is."""
    newest = scene.host.store.index(scene.record.root_index).stat().st_ctime_ns  # it is written last
    time.sleep(max(0, newest + QUIET + SECOND // 100 - time.time_ns()) / SECOND)
    scene.must_start()
    assert len(list(scene.host.store.seals.iterdir())) == 3


def test_one_byte_that_was_written_is_found_in_spite_of_the_seal(scene: Ready) -> None:
    _quiet(scene)
    path = scene.host.store.layer(scene.app.built.diff_ids[0])
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(700)
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused = scene.start()
    assert isinstance(refused, Refused)
    assert refused.code == "layer-changed"


def test_seals_go_with_what_they_are_of(scene: Ready) -> None:
    _quiet(scene)
    scene.host.store.prune(in_use=tuple)
    assert list(scene.host.store.seals.iterdir()) == []


# Bytes that change beneath the file system


def test_always_refuses_what_changed_beneath_the_file_system_and_sealed_finds_it_when_it_hashes_again(
    scene: Ready, tmp_path: Path
) -> None:
    time.sleep(QUIET / SECOND + 0.1)
    disk = Disk.of(scene.host.store.path, tmp_path)
    image = str(scene.app.reference)
    right = scene.app.built.layers[1].tar[:600]
    wrong = b"!" + right[1:]
    changed = str(scene.app.built.diff_ids[1])
    assert disk.do("sealed", "start", image, "start", image) == ["allowed"] * 2
    disk.replace(right, wrong)
    assert disk.do("start", image) == ["allowed"], "its seal still fits"
    assert disk.do("verify", image) == ["layer-changed"], "that hashes whatever the host chose"
    assert disk.do("always", "start", image) == ["layer-changed"]
    assert disk.do("sealed", "start", image, "rehash", "start", image) == [
        "layer-changed",
        f"rehashed 3 {changed}",
        "layer-changed",
    ]
    disk.replace(wrong, right)
    assert disk.do("start", image, "rehash", "start", image) == ["layer-changed", "rehashed 3", "allowed"]


def test_what_was_sealed_starts_until_it_is_hashed_again(scene: Ready, tmp_path: Path) -> None:
    time.sleep(QUIET / SECOND + 0.1)
    disk = Disk.of(scene.host.store.path, tmp_path)
    image = str(scene.app.reference)
    right = scene.app.built.layers[0].tar[:600]
    assert disk.do("start", image) == ["allowed"]
    disk.replace(right, b"!" + right[1:])
    assert disk.do("start", image, "rehash", "start", image) == [
        "allowed",
        f"rehashed 3 {scene.app.built.diff_ids[0]}",
        "layer-changed",
    ]


def _change(scene: Ready, path: Path) -> None:
    """Change a file, and have a rehash find that."""
    with path.open("r+b") as file:
        file.write(b"!")
    done = rehash(scene.host.store)
    assert len(done.damaged) == 1
    assert done.damaged[0].images == (scene.record,)


def test_what_was_found_changed_is_not_started_from_whatever_the_cache_says(scene: Ready) -> None:
    for path, code in (
        (scene.host.store.layer(scene.app.built.diff_ids[0]), "layer-changed"),
        (scene.host.store.index(scene.app.facts.root_index), "root-index-changed"),
    ):
        right = path.read_bytes()
        _change(scene, path)
        with path.open("r+b") as file:  # as a page cache would that still holds it
            file.write(right)
        refused = scene.start()
        assert isinstance(refused, Refused)
        assert refused.code == code
        assert rehash(scene.host.store).damaged == ()
        scene.must_start()


def test_a_pull_fetches_what_was_found_changed(scene: Ready) -> None:
    path = scene.host.store.layer(scene.app.built.diff_ids[0])
    right = path.read_bytes()
    _change(scene, path)
    with path.open("r+b") as file:
        file.write(right)
    before = path.stat().st_ino
    scene.pull(scene.app)
    assert path.stat().st_ino != before
    scene.must_start()


def test_what_runs_from_a_file_that_was_found_changed_is_stopped(scene: Ready) -> None:
    proven = scene.start()
    assert isinstance(proven, Proven)
    watch = Watcher(host=scene.host, watched=proven.watched(), clock=scene.registry.clock, sync_every=1_000_000)
    assert watch() is None
    _change(scene, scene.host.store.layer(scene.app.built.diff_ids[0]))
    reason = watch()
    assert reason is not None
    assert reason.code == "files-changed"
    assert reason.at_once, "as the policy says of what is revoked"
    # Another file takes its place: what starts then is believed, what runs is not.
    scene.pull(scene.app)
    newer = scene.start()
    assert isinstance(newer, Proven)
    assert Watcher(host=scene.host, watched=newer.watched(), clock=scene.registry.clock)() is None
    assert watch() is not None


def test_a_list_of_changed_files_that_cannot_be_read_starts_nothing(scene: Ready) -> None:
    replace_file(scene.host.store.path / "changed", b"nonsense\n")
    refused = scene.start()
    assert isinstance(refused, Refused)
    assert refused.code == "store-unusable"
    with pytest.raises(StoreError, match="damaged"):
        rehash(scene.host.store)


def test_only_what_is_due_is_hashed_again(scene: Ready) -> None:
    _quiet(scene)
    done = rehash(scene.host.store)
    assert (done.hashed, done.sealed, done.damaged) == (0, 3, ())
    done = rehash(scene.host.store, due=timedelta(0))
    assert (done.hashed, done.sealed, done.damaged) == (3, 0, ())


def test_what_is_missing_is_said(scene: Ready) -> None:
    scene.host.store.layer(scene.app.built.diff_ids[0]).unlink()
    damaged = rehash(scene.host.store).damaged
    assert [each.digest for each in damaged] == [scene.app.built.diff_ids[0]]
    assert "No such file" in damaged[0].detail
