"""The unit that looks for changed layers, run by a systemd with all of its hardening."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.ready import ready
from tests.support.systemd import systemd
from tests.support.tools import need

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
SERVICE = "pratique-rehash.service"


@pytest.mark.parametrize("kind", ["rehash.timer", "broker.socket"])
def test_systemd_knows_every_line_of_a_hosts_units(tmp_path: Path, kind: str) -> None:
    name = f"pratique-{kind}"
    for each in (name, f"pratique-{kind.partition('.')[0]}.service"):
        text = (UNITS / each).read_text()
        (tmp_path / each).write_text(text.replace("/opt/pratique/bin/pratique", "/bin/true"))
    command = [need("systemd-analyze"), "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout + done.stderr == ""


@pytest.mark.root
def test_it_fails_once_a_layer_was_changed_and_says_which(tmp_path: Path) -> None:
    with ready(tmp_path / "store") as scene:
        seen = sorted({str(ROOT), sys.base_prefix, sysconfig.get_paths()["purelib"], sys.prefix})
        drop_in = [
            "[Service]",
            # What a test runs lies where ProtectHome= or PrivateTmp= may hide it.
            "ProtectHome=tmpfs",
            *(f"BindReadOnlyPaths={path}" for path in seen),
            f"BindPaths={scene.host.store.path}:/var/lib/pratique",
            "StandardOutput=append:/run/said.log",
            "StandardError=inherit",
        ]
        files = {
            f"/run/units/{SERVICE}": (UNITS / SERVICE).read_text(),
            f"/run/units/{SERVICE}.d/test.conf": "\n".join([*drop_in, ""]),
            "/opt/pratique/bin/pratique": f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m pratique "$@"\n',
            "/var/lib/pratique/.keep": "",
        }
        with systemd(tmp_path, files) as init:
            init.run("systemctl", "start", SERVICE)
            assert "3 files hashed, 0 hashed lately, 0 damaged" in init.run("cat", "/run/said.log")
            diff_id = scene.app.built.diff_ids[0]
            with scene.host.store.layer(diff_id).open("r+b") as file:
                file.write(b"!")
            init.run("systemctl", "start", SERVICE, check=False)
            assert init.show(SERVICE, "ExecMainStatus") == "3"
            said = init.run("cat", "/run/said.log")
            assert f"damaged: {diff_id}: on the disk it is sha256:" in said
            assert f"image:     {scene.record.name}" in said
