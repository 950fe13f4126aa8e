"""The unit in deploy/, started by a systemd of its own with all of its hardening: users, an image judged, a reload."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from policy.key_files import write_private
from registry.settings import parse
from tests.registry.test_graceful import until
from tests.support import trust
from tests.support.images import image
from tests.support.live import WholeRegistry, now
from tests.support.processes import free_port
from tests.support.systemd import Systemd, systemd
from tests.support.tools import need

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "pratique-registry.service"
NAME = "pratique-registry.service"


def verified(folder: Path, text: str) -> str:
    """What `systemd-analyze verify` has against a unit whose program is one that this machine has."""
    (folder / NAME).write_text(text.replace("/opt/pratique/bin/pratique", "/bin/true"))
    done = subprocess.run(
        [need("systemd-analyze"), "verify", "--man=no", str(folder / NAME)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    assert verified(tmp_path, UNIT.read_text()) == ""
    assert "Unknown key" in verified(tmp_path, UNIT.read_text().replace("ProtectSystem=", "ProtectSytem="))


def test_the_example_of_settings_is_read_and_names_the_users_that_are_made() -> None:
    settings = parse((DEPLOY / "registry.yaml").read_bytes())
    made = {
        line.split()[1] for line in (DEPLOY / "systemd" / "sysusers.conf").read_text().splitlines() if line[0] in "ug"
    }
    users = settings.users
    assert {users.web, users.judge, users.signer, users.mirror, users.group} == made
    folders = (DEPLOY / "systemd" / "tmpfiles.conf").read_text()
    assert f"d {settings.data} 0770 root {users.group} -" in folders
    assert f"ReadWritePaths={settings.data}\n" in UNIT.read_text()


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Systemd, WholeRegistry]]:
    """The unit under systemd; /opt/pratique is this checkout, and the registry listens at a free port."""
    folder, port = tmp_path_factory.mktemp("systemd"), free_port()
    settings = yaml.safe_load((DEPLOY / "registry.yaml").read_text())
    settings["name"] = f"127.0.0.1:{port}"
    settings["http"] |= {"listen": f"127.0.0.1:{port}", "drain": 0, "workers": 1}
    settings["metrics"]["listen"] = f"127.0.0.1:{free_port()}"
    # What a test runs lies where ProtectHome= or PrivateTmp= may hide it from a unit: it is bound into its view.
    seen = sorted({str(ROOT), sys.base_prefix, sysconfig.get_paths()["purelib"], sys.prefix})
    program = f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m pratique "$@"\n'
    drop_in = ["[Service]", "ProtectHome=tmpfs", "RestartSec=100ms", *(f"BindReadOnlyPaths={path}" for path in seen)]
    files = {
        f"/run/units/{NAME}": UNIT.read_text(),
        f"/run/units/{NAME}.d/test.conf": "\n".join(
            [*drop_in, "StandardOutput=append:/run/serve.log", "StandardError=inherit", ""]
        ),
        "/opt/pratique/bin/pratique": program,
        "/etc/pratique/registry.yaml": yaml.safe_dump(settings),
        "/etc/sysusers.d/pratique-registry.conf": (DEPLOY / "systemd" / "sysusers.conf").read_text(),
        "/etc/tmpfiles.d/pratique-registry.conf": (DEPLOY / "systemd" / "tmpfiles.conf").read_text(),
    }
    ring = trust.keyring(registry=f"127.0.0.1:{port}", levels=("base", "application"), now=now())
    with systemd(folder, files) as init:
        init.run("systemd-sysusers", "/etc/sysusers.d/pratique-registry.conf")
        init.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/pratique-registry.conf")
        data = Path(f"/proc/{init.pid}/root/var/lib/pratique-registry")
        (data / "signer").mkdir(mode=0o700)
        write_private(data / "signer" / "key.pem", ring.registry)
        try:
            init.run("systemctl", "start", NAME)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{init.run('cat', '/run/serve.log')}") from None
        live = WholeRegistry(folder=folder, settings=parse(yaml.safe_dump(settings).encode()), ring=ring)
        said = init.run("cat", "/run/serve.log")
        live.token = next(line.rpartition(" ")[2] for line in said.splitlines() if line.startswith("bootstrap token"))
        shutil.copyfile(f"/proc/{init.pid}/root/run/serve.log", folder / "serve.log")
        live.bootstrap()
        live.publish()
        yield init, live


@pytest.mark.root
def test_it_is_active_once_it_can_be_used_and_judges_images(unit: tuple[Systemd, WholeRegistry]) -> None:
    init, live = unit
    assert init.show(NAME, "ActiveState") == "active"
    assert live.request("GET", "/readyz", account=None).status == 200
    built = image([{"bin/": b"", "bin/sh": b"#!"}])
    live.push("team/base", built, "1")
    live.approve("team/base", built, "base", live.ring.alice, live.ring.bob)
    live.until("team/base", "1", "cleared")


@pytest.mark.root
def test_each_process_has_its_user_and_no_capability_of_roots(unit: tuple[Systemd, WholeRegistry]) -> None:
    init, _ = unit
    main = init.show(NAME, "MainPID")
    listed = init.run("ps", "-ww", "-o", "user:32=,args=", "--ppid", main).splitlines()
    users = {line.split()[0]: line.partition("-m registry.")[2].split()[:2] for line in listed}
    assert users["pratique-signer"] == ["run", "signer"]
    assert users["pratique-judge"] == ["run", "judge"]
    assert users["pratique-web"] == ["run", "metrics"]
    status = init.run("cat", f"/proc/{main}/status")
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    # linux/capability.h: 12 is CAP_NET_ADMIN, 16 CAP_SYS_MODULE, 19 CAP_SYS_PTRACE
    (bounding,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:")]
    assert not bounding & (1 << 12 | 1 << 16 | 1 << 19)
    refused = init.run("nsenter", "-t", main, "--mount", "touch", "/etc/written", check=False)
    assert "Read-only file system" in refused


@pytest.mark.root
def test_reload_and_stop_are_told_in_their_order(unit: tuple[Systemd, WholeRegistry]) -> None:
    init, live = unit
    init.run("systemctl", "reload", NAME)
    until(lambda: "reloaded: new web processes serve" in init.run("cat", "/run/serve.log"))
    assert init.show(NAME, "ActiveState") == "active"
    assert live.request("GET", "/readyz", account=None).status == 200
    main = init.show(NAME, "MainPID")
    init.run("kill", "-KILL", main)
    until(lambda: init.show(NAME, "MainPID") not in {main, "0"} and init.show(NAME, "ActiveState") == "active")
    until(lambda: _ready(live))
    init.run("systemctl", "stop", NAME)
    assert init.show(NAME, "ActiveState") == "inactive"
    assert init.show(NAME, "Result") == "success"
    assert init.show(NAME, "ExecMainStatus") == "0"


def _ready(live: WholeRegistry) -> bool:
    try:
        return live.request("GET", "/readyz", account=None).status == 200
    except OSError:
        return False
