"""The local store: whole files, owned files, and nothing removed that somebody needs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.errors import LimitError
from ocispec.reference import Reference
from policy.statements import ConfigFacts, ResolvedUser
from runtime import images
from runtime.errors import StoreError
from runtime.images import ImageRecord
from runtime.ownfiles import publish, read_owned, replace_file, stamp
from runtime.store import Documents, Store
from tests.support.tools import need_root
from tests.support.trust import NOW, digest

RECORD = ImageRecord(
    registry="registry.example:5000",
    repository="team/app",
    manifest=digest("manifest"),
    config=digest("config"),
    platform="linux/amd64",
    diff_ids=(digest("base"), digest("app")),
    root_index=digest("index"),
    index=digest("image index"),
    user=ResolvedUser(uid=1000, gid=1000, groups=(5,), home="/home/app"),
    config_facts=ConfigFacts(user="app", cmd=("/app", "ü"), env=("A=1",)),
    pulled=NOW,
)
OTHER = replace(
    RECORD,
    manifest=digest("other"),
    diff_ids=(digest("base"), digest("third")),
    root_index=digest("index 2"),
    index=None,
)
DOCUMENTS = Documents(manifest=b"m", config=b"c", clearance=b"cl", index=b"i", index_clearance=b"ic")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _layer(store: Store, name: str, content: bytes = b"tar") -> Path:
    path = store.layer(digest(name))
    path.write_bytes(content)
    path.chmod(0o444)
    return path


def _fill(store: Store) -> None:
    for record in (RECORD, OTHER):
        store.write_image(record, DOCUMENTS)
        for diff_id in record.diff_ids:
            replace_file(store.layer(diff_id), b"12345")
            replace_file(store.path / "listings" / diff_id.hex, b"123")
        replace_file(store.index(record.root_index), b"1234567")


def test_a_record_is_kept_as_it_is(store: Store) -> None:
    store.write_image(RECORD, DOCUMENTS)
    store.write_image(OTHER, replace(DOCUMENTS, index=None, index_clearance=None))
    assert set(store.images()) == {RECORD, OTHER}
    assert (store.manifest(RECORD), store.config(RECORD), store.clearance(RECORD)) == (b"m", b"c", b"cl")


def test_an_image_is_found_by_manifest_and_by_index_in_its_own_repository(store: Store) -> None:
    store.write_image(RECORD, DOCUMENTS)
    store.write_image(replace(RECORD, repository="other/app"), DOCUMENTS)
    assert store.find(RECORD.registry, "team/app", RECORD.manifest) == RECORD
    assert store.find(RECORD.registry, "team/app", digest("image index")) == RECORD
    assert store.find(RECORD.registry, "team/third", RECORD.manifest) is None
    assert store.find(RECORD.registry, "team/app", digest("none")) is None
    assert len(store.images()) == 2


def test_a_newer_clearance_replaces_the_older_one(store: Store) -> None:
    store.write_image(RECORD, DOCUMENTS)
    before = store.clearance_stamp(RECORD)
    store.write_clearance(RECORD, b"newer")
    assert store.clearance(RECORD) == b"newer"
    assert store.clearance_stamp(RECORD) != before


def test_what_a_killed_pull_left_does_not_count(store: Store) -> None:
    store.write_image(RECORD, DOCUMENTS)
    (store.path / "images" / RECORD.key / "record").unlink()
    assert store.images() == ()


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"version":"2"}', b"\xff"])
def test_a_damaged_record_is_an_error(store: Store, damage: bytes) -> None:
    store.write_image(RECORD, DOCUMENTS)
    replace_file(store.path / "images" / RECORD.key / "record", damage)
    with pytest.raises(StoreError, match=f"record {RECORD.key}: damaged"):
        store.images()


def test_a_record_with_something_more_in_it_is_damaged() -> None:
    raw = images.encode(RECORD)
    assert images.decode(raw, what="record") == RECORD
    with pytest.raises(StoreError, match="unknown member"):
        images.decode(raw[:-1] + b',"zzz":1}', what="record")


def test_a_tag_is_kept_by_its_whole_name(store: Store) -> None:
    reference = Reference.parse("registry.example/team/app:1.0")
    assert store.tag(reference) is None
    store.write_tag(reference, b"statement")
    assert store.tag(reference) == b"statement"
    assert store.tag(replace(reference, tag="1")) is None
    store.write_tag(replace(reference, tag=None), b"latest")
    assert store.tag(replace(reference, tag="latest")) == b"latest"


# Who may have written it


def test_a_layer_that_others_could_have_written_is_not_opened(store: Store) -> None:
    path = _layer(store, "a")
    os.close(store.open_layer(digest("a")))
    for mode in (0o464, 0o446, 0o666):
        path.chmod(mode)
        with pytest.raises(StoreError, match=f"got mode {mode:04o}"):
            store.open_layer(digest("a"))


@pytest.mark.root
def test_a_layer_of_somebody_else_is_not_opened(store: Store) -> None:
    need_root()
    os.chown(_layer(store, "a"), 1000, 0)
    with pytest.raises(StoreError, match="of uid 1000, expected uid 0"):
        store.open_layer(digest("a"))


def test_a_name_that_leads_elsewhere_is_not_followed(store: Store, tmp_path: Path) -> None:
    path = _layer(store, "a")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="Too many levels"):
        store.open_layer(digest("a"))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="not a regular file"):
        store.open_layer(digest("a"))
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        store.open_layer(digest("a"))
    with pytest.raises(StoreError, match=r"root index .*: No such file"):
        store.open_index(digest("a"))


@pytest.mark.parametrize("folder", [".", "layers", "host"])
def test_a_store_that_others_may_write_is_refused(store: Store, folder: str) -> None:
    (store.path / folder).chmod(0o770)
    with pytest.raises(StoreError, match="nobody else may write"):
        Store.open(store.path)


@pytest.mark.root
def test_a_store_of_somebody_else_is_refused(store: Store) -> None:
    need_root()
    os.chown(store.path / "images", 1000, 1000)
    with pytest.raises(StoreError, match="of uid 1000"):
        Store.open(store.path)


def test_a_store_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StoreError):
        Store.open(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        Store.open(tmp_path / "file")


# Whole files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    before = stamp(path)
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert stamp(path) != before
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert stamp(tmp_path / "none") == (0, 0, 0)
    with pytest.raises(StoreError, match=r"cannot be written: No such file"):
        replace_file(tmp_path / "none" / "file", b"")


def test_a_finished_file_becomes_readable_and_nothing_else(tmp_path: Path) -> None:
    with (tmp_path / "unfinished").open("w+b") as file:
        file.write(b"x")
        file.flush()
        publish(file.fileno(), tmp_path / "unfinished", tmp_path / "final")
        assert (tmp_path / "final").stat().st_mode & 0o777 == 0o444
        with pytest.raises(StoreError, match="cannot be written"):
            publish(file.fileno(), tmp_path / "unfinished", tmp_path / "again")


def test_a_file_that_is_read_is_bounded(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"12345")
    with pytest.raises(LimitError):
        read_owned(tmp_path / "file", limit=4, what="file")


# Who uses it


def test_a_workspace_is_gone_afterwards(store: Store) -> None:
    with store.workspace() as work:
        (work / "half").write_bytes(b"1")
        Store.open(store.path)
        assert work.exists(), "it is held, so nobody sweeps it away"
    assert list((store.path / "work").iterdir()) == []


def test_what_a_killed_pull_had_not_finished_is_swept_away(store: Store) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from runtime.store import Store\n"
        "with Store(Path(sys.argv[1])).workspace() as work:\n"
        "    (work / 'half').write_bytes(b'1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, store.path], check=False, timeout=30)
    assert len(list((store.path / "work").iterdir())) == 1
    Store.open(store.path)
    assert list((store.path / "work").iterdir()) == []


def test_nothing_is_removed_while_somebody_pulls_or_starts(store: Store) -> None:
    _fill(store)
    with store.shared():
        with store.shared():
            pass
        with pytest.raises(StoreError, match="in use by a pull or a start"):
            store.prune(in_use=tuple)
        with pytest.raises(StoreError, match="in use by a pull or a start"):
            store.remove(RECORD, in_use=tuple)
    assert len(store.images()) == 2


def test_what_runs_is_not_removed(store: Store) -> None:
    _fill(store)
    with pytest.raises(StoreError, match="a container of it runs"):
        store.remove(RECORD, in_use=lambda: [RECORD.manifest])
    store.remove(OTHER, in_use=lambda: [RECORD.manifest])
    assert store.images() == (RECORD,)
    assert store.layer(digest("third")).exists(), "layers go with the next prune"


def test_prune_removes_what_neither_runs_nor_is_kept_and_nothing_that_others_need(store: Store) -> None:
    _fill(store)
    pruned = store.prune(in_use=lambda: [RECORD.manifest])
    assert pruned.images == (OTHER.name,)
    assert (pruned.layers, pruned.indexes, pruned.freed) == (1, 1, 5 + 7 + 3)
    assert {path.name for path in (store.path / "layers").iterdir()} == {f"{d.hex}.tar" for d in RECORD.diff_ids}
    assert store.prune(in_use=tuple, keep=[RECORD.manifest]).images == ()
    assert store.prune(in_use=tuple).layers == 2
    assert list((store.path / "layers").iterdir()) == []


def test_a_layer_finds_its_place_and_its_listing(store: Store) -> None:
    assert store.listing(digest("a")) is None
    with store.workspace() as work:
        for name, add in (("tar", store.add_layer), ("list", store.add_listing)):
            with (work / name).open("w+b") as file:
                file.write(name.encode())
                file.flush()
                add(file.fileno(), work / name, digest("a"))
        with (work / "index").open("w+b") as file:
            store.add_index(file.fileno(), work / "index", digest("i"))
    assert store.listing(digest("a")) == b"list"
    assert store.layer(digest("a")).read_bytes() == b"tar"
    os.close(store.open_index(digest("i")))


def test_a_manifest_that_is_in_two_repositories_has_two_folders() -> None:
    assert RECORD.key != replace(RECORD, repository="team/other").key
    assert RECORD.name == f"registry.example:5000/team/app@{digest('manifest')}"
    assert Digest.of(b"x") not in RECORD.diff_ids
