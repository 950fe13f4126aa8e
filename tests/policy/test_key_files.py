"""Keys on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from policy.errors import TrustError
from policy.key_files import read_private, read_public, write_private, write_public
from policy.private_key import PrivateKey


def test_a_private_key_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    key, path = PrivateKey.generate(), tmp_path / "officer.key"
    before = os.umask(0)
    try:
        write_private(path, key)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private(path).public == key.public
    assert [file.name for file in tmp_path.iterdir()] == ["officer.key"]


def test_a_private_key_can_have_a_passphrase(tmp_path: Path) -> None:
    key, path = PrivateKey.generate(), tmp_path / "root.key"
    write_private(path, key, b"correct horse")
    assert b"ENCRYPTED" in path.read_bytes()
    assert read_private(path, b"correct horse").public == key.public
    with pytest.raises(TrustError) as refused:
        read_private(path, b"wrong")
    assert refused.value.code == "passphrase"
    assert refused.value.subject == str(path)


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    path.write_bytes(b"the only copy")
    with pytest.raises(TrustError) as refused:
        write_private(path, PrivateKey.generate())
    assert refused.value.code == "key-exists"
    with pytest.raises(TrustError) as refused:
        write_public(path, PrivateKey.generate().public)
    assert refused.value.code == "key-exists"
    assert path.read_bytes() == b"the only copy"
    assert [file.name for file in tmp_path.iterdir()] == ["root.key"]


def test_a_symlink_in_the_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    path = tmp_path / "root.key"
    path.symlink_to(target)
    with pytest.raises(TrustError):
        write_private(path, PrivateKey.generate())
    assert not target.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_private_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "officer.key"
    write_private(path, PrivateKey.generate())
    path.chmod(mode)
    with pytest.raises(TrustError) as refused:
        read_private(path)
    assert refused.value.code == "key-readable"
    assert f"{mode:04o}" in refused.value.detail


def test_a_public_key_may_be_read_by_all(tmp_path: Path) -> None:
    public, path = PrivateKey.generate().public, tmp_path / "cosign.pub"
    write_public(path, public)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert read_public(path) == public


def test_a_public_key_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cosign.pub"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(TrustError) as refused:
        read_public(path)
    assert (refused.value.code, refused.value.subject) == ("bad-key", str(path))


def test_nothing_is_left_when_the_disk_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_private(tmp_path / "missing" / "root.key", PrivateKey.generate())
    assert list(tmp_path.iterdir()) == []
