"""`pratique serve --check`: each problem that a start would come upon is a line, and looking changes nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from policy.key_files import write_private
from policy.keys import Algorithm
from policy.private_key import PrivateKey
from registry import check as checking
from registry.catalogue.schema import meta, trust
from registry.first import first_start
from registry.places import Places
from registry.signer.identity import check_signer, open_memory
from tests.support import judging
from tests.support.certificates import authority
from tests.support.live import WholeRegistry, now, prepared
from tests.support.tools import need_root


@pytest.fixture
def live() -> Iterator[WholeRegistry]:
    """A registry that was never started; its key is there."""
    with prepared() as made:
        yield made


def change(live: WholeRegistry, **members: Any) -> None:
    """Change the settings file: members of groups beside those that are there."""
    known = yaml.safe_load(live.settings_file.read_text())
    for name, value in members.items():
        known[name] = {**known.get(name, {}), **value} if isinstance(value, dict) else value
    live.settings_file.write_text(yaml.safe_dump(known))


def problems(live: WholeRegistry, capsys: pytest.CaptureFixture[str], *, deadline: float = 30) -> list[str]:
    """The problems that are said; the exit code must be right, and what is in the data folder stay as it was."""
    before = listing(live.settings.data)
    code = checking.check(live.settings_file, deadline=deadline)
    *lines, last = capsys.readouterr().out.splitlines()
    found = [line for line in lines if not line.startswith("note: ")]
    assert code == (1 if found else 0)
    assert last.startswith(f"{live.settings_file}: {len(found) or 'no'} problem")
    assert listing(live.settings.data) == before
    return found


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mode, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def started_once(live: WholeRegistry) -> None:
    """Have everything there that a first start makes, the signer's memory too."""
    first_start(live.settings, now=now())
    memory, catalogue = open_memory(live.settings), live.catalogue()
    memory.bind_key(live.ring.registry.public.id)
    with catalogue.write() as conn:
        check_signer(conn, memory.id())
    catalogue.close()
    memory.close()


def test_nothing_stands_against_a_first_start_nor_a_second(
    live: WholeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    (live.folder / "trust.json").write_bytes(live.ring.envelope)
    (live.folder / "policy.json").write_bytes(judging.published_policy(live.ring, now=now(), required=False))
    change(live, trust=str(live.folder / "trust.json"), policy=str(live.folder / "policy.json"))
    assert problems(live, capsys) == []
    started_once(live)
    assert problems(live, capsys) == []
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        assert conn.execute(select(trust)).all() == []
    catalogue.close()


def test_the_command_prints_every_problem_of_the_file_and_ends_with_1(live: WholeRegistry) -> None:
    change(live, nmae="x", http={"threads": 1, "thread": 8}, limits={"page": "all"})
    command = [sys.executable, "-m", "pratique", "serve", "--check", "--config", str(live.settings_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    *lines, last = done.stdout.splitlines()
    assert last == f"{live.settings_file}: 4 problems"
    assert [line.split(": ")[1] for line in lines] == [
        "setting nmae",
        "setting http.thread",
        "setting http.threads",
        "setting limits.page",
    ]
    command.remove("--check")
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert refused.stderr.endswith("(and 3 more: pratique serve --check)\n")


def test_a_key_that_others_may_read(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    Places(live.settings).signer_key.chmod(0o644)
    (found,) = problems(live, capsys)
    assert "signer/key.pem: mode is 0644" in found


def test_statements_that_are_not_believed(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    (live.folder / "trust.json").write_text("{}")
    change(live, trust=str(live.folder / "trust.json"))
    (found,) = problems(live, capsys)
    assert "trust.json" in found
    change(live, trust=str(live.folder / "missing.json"))
    (found,) = problems(live, capsys)
    assert found.endswith("missing.json: No such file or directory")
    (live.folder / "policy.json").write_bytes(judging.published_policy(live.ring, now=now(), required=False))
    live.settings_file.write_text(yaml.safe_dump({**known(live), "policy": str(live.folder / "policy.json")}))
    (found,) = problems(live, capsys)
    assert "expected together with a trust.json" in found


def known(live: WholeRegistry) -> dict[str, object]:
    members = yaml.safe_load(live.settings_file.read_text())
    return {name: value for name, value in members.items() if name not in {"trust", "policy"}}


def test_a_key_that_trust_does_not_name(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    (live.folder / "trust.json").write_bytes(live.ring.envelope)
    change(live, trust=str(live.folder / "trust.json"))
    key = Places(live.settings).signer_key
    key.unlink()
    write_private(key, PrivateKey.generate(Algorithm.ECDSA_P256))
    (found,) = problems(live, capsys)
    assert found.startswith("trust.json: names no key sha256:")


def test_catalogue_memory_and_key_that_do_not_belong_together(
    live: WholeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    started_once(live)
    places = Places(live.settings)
    places.signer_key.rename(live.folder / "old.pem")
    write_private(places.signer_key, PrivateKey.generate(Algorithm.ECDSA_P256))
    (found,) = problems(live, capsys)
    assert "belongs to key" in found
    assert "--adopt-signer" in found
    (live.folder / "old.pem").replace(places.signer_key)
    places.signer_memory.rename(live.folder / "old.sqlite")
    (found,) = problems(live, capsys)
    assert found.startswith("signer memory: there is none, this catalogue's statements come from")
    open_memory(live.settings).close()
    (found,) = problems(live, capsys)
    assert "this catalogue's statements come from" in found
    (live.folder / "old.sqlite").replace(places.signer_memory)
    change(live, name="other.example")
    (found,) = problems(live, capsys)
    assert "this catalogue is of registry" in found


def test_tables_of_a_later_release(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    started_once(live)
    catalogue = live.catalogue()
    with catalogue.write() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        assert conn.execute(select(meta)).all()
    catalogue.close()
    (found,) = problems(live, capsys)
    assert "revision '9999'" in found


def test_certificates(live: WholeRegistry, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = authority(tmp_path)

    def of(name: str, host: str, days: float) -> list[str]:
        chain, key = root.issue(name, host, days=days)
        change(live, http={"certificate": str(chain), "key": str(key)})
        return problems(live, capsys)

    assert of("good", "127.0.0.1", 30) == []
    (found,) = of("other", "registry.example", 30)
    assert found.endswith("is not for 127.0.0.1, which clients ask for")
    (found,) = of("ended", "127.0.0.1", 0)
    assert "good from" in found
    change(live, http={"key": str(tmp_path / "good.key")})
    (found,) = problems(live, capsys)
    assert "expected a PEM chain and its key" in found
    change(live, http={"key": str(tmp_path / "none.key")})
    (found,) = problems(live, capsys)
    assert found.endswith("none.key: No such file or directory")


def test_files_by_which_others_are_checked(
    live: WholeRegistry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-the-tests")
    secret.chmod(0o644)
    mirror = {"prefix": "hub/", "registry": "hub.example", "account": "shop", "secret_file": str(secret)}
    traces = {"endpoint": "https://127.0.0.1:4318/v1/traces", "ca_file": str(tmp_path / "ca.pem")}
    change(live, mirrors=[mirror], traces=traces)
    change(live, certificates={"ca": str(tmp_path / "missing.pem"), "header": "Client-Cert"}, http={"proxies": ["::1"]})
    found = problems(live, capsys)
    assert len(found) == 3
    assert any("setting traces.ca_file" in line for line in found)
    assert any("secret has mode 0644" in line for line in found)
    assert any("setting certificates.ca" in line for line in found)


def test_ports_that_somebody_has(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", live.port))
        taken.listen()
        (found,) = problems(live, capsys)
        assert found == f"setting http.listen: {live.address}: Address already in use"


def test_a_registry_that_runs_has_its_own_ports(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    live.start()
    try:
        assert checking.check(live.settings_file) == 0, capsys.readouterr()
        assert "this registry runs" in capsys.readouterr().out
        assert live.request("GET", "/readyz", account=None).status == 200
    finally:
        live.stop()


@pytest.mark.root
def test_users_that_are_not_there_or_not_apart(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    need_root()
    change(live, users={"web": "no-such-user", "judge": "60103", "mirror": "0"})
    found = problems(live, capsys)
    assert [line.partition(":")[0] for line in found] == [
        "setting users.web",
        "setting users.signer",
        "setting users.mirror",
    ]


@pytest.mark.root
def test_a_folder_that_the_users_cannot_enter(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    need_root()
    live.folder.chmod(0o700)
    (found,) = problems(live, capsys)
    assert f"folder {live.folder} has mode 0700" in found


def test_a_disk_that_is_too_small(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    change(live, limits={"free_bytes": 2**50})
    (found,) = problems(live, capsys)
    assert "bytes free, expected at least 1125899906842624" in found


def test_storage_and_database_that_do_not_answer_or_are_not_there(
    live: WholeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = {"bucket": "b", "access_key": "tester", "secret_key": "a-secret-of-the-tests", "timeout": 2, "deadline": 3}
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        change(live, storage={"engine": "s3", "s3": {**s3, "endpoint": f"http://127.0.0.1:{port}"}})
        change(live, catalogue=f"postgresql://registry@127.0.0.1:{port}/registry")
        found = problems(live, capsys, deadline=0.5)
        assert found == ["storage: no answer within 0.5 s", "catalogue and signer: no answer within 0.5 s"]
    found = problems(live, capsys)
    assert len(found) == 2
    assert all("refused" in line.lower() or "could not connect" in line.lower() for line in found)


def test_a_data_folder_that_cannot_be_made(live: WholeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    (live.folder / "file").write_text("")
    change(live, data=str(live.folder / "file" / "data"))
    found = problems(live, capsys)
    assert [line for line in found if "no folder that can be written to" in line]
