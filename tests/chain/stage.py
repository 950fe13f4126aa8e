"""Where the tests of the whole chain play: a registry, people with keys and accounts, an enrolled host, two images.

Everything is done by the `pratique` command, each time in a process of its own, as its users do it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from policy.key_files import write_private
from tests.support.images import BuiltImage, Content, Dir, File, Link, image
from tests.support.live import WholeRegistry
from tests.support.packages import Deb, Wheel, dpkg_files, os_release, python_files
from tests.support.tools import need

REPOSITORY = Path(__file__).parent.parent.parent
ADVISORIES = REPOSITORY / "tests" / "assets" / "advisories"
POLICY = REPOSITORY / "policies" / "default.yaml"
PEOPLE = {"dev": "pusher", "alice": "officer", "carol": "auditor", "host-1": "host", "sam": "scanner"}
"""Accounts and their roles; the admin comes first, by the one-time token."""

PROGRAM = b"""#!/bin/sh
echo "pid $$"
echo "host $(cat /proc/sys/kernel/hostname)"
echo "capabilities $(sed -n 's/^CapEff:.//p' /proc/self/status)"
(: >/srv/app/written) 2>/dev/null && echo "root writable" || echo "root read-only"
[ "${1:-}" = once ] && exit "${2:-0}"
trap 'exit 0' TERM
while :; do sleep 0.2; done
"""
"""Says what it sees; with `once` it ends then, with an exit code, else when it is told to."""


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True, kw_only=True)
class Desk:
    """A folder to work in, and what the command is told by its environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, folder: Path, **changes: str) -> Desk:
        """A desk whose configuration, store and state lie in `folder`; `changes` replace variables."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PRATIQUE_")}
        own = {
            "PRATIQUE_CONFIG": str(folder / "config"),
            "PRATIQUE_STORE": str(folder / "store"),
            "PRATIQUE_STATE": str(folder / "state"),
            "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
            "PYTHONPATH": str(REPOSITORY),
        }
        return cls(folder=folder, environment={**kept, **own, **changes})

    @property
    def store(self) -> Path:
        """The host's store."""
        return Path(self.environment["PRATIQUE_STORE"])

    @property
    def state(self) -> Path:
        """The folder of running containers."""
        return Path(self.environment["PRATIQUE_STATE"])

    def run(self, *words: object, send: str = "", seconds: float = 60) -> Result:
        """Run any command here."""
        done = subprocess.run(
            [str(word) for word in words],
            input=send.encode(),
            capture_output=True,
            check=False,
            timeout=seconds,
            cwd=self.folder,
            env=self.environment,
        )
        return Result(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        """Start the command in the background."""
        command = [*command_line(), *(str(word) for word in words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=self.folder, env=self.environment)

    def pratique(self, *words: object, send: str = "", before: tuple[str, ...] = ()) -> Result:
        """Run the command; `before` is another one in front of it, like faketime."""
        return self.run(*before, *command_line(), *words, send=send)

    def fine(self, *words: object, send: str = "") -> str:
        """Run the command, which must end well; returns what it printed."""
        result = self.pratique(*words, send=send)
        assert result.code == 0, f"{words}: {result}"
        return result.out


def command_line() -> tuple[str, ...]:
    """How the command is started: as it is installed, beside the Python that runs the tests."""
    return sys.executable, "-m", "pratique"


def base_image(motd: str = "") -> BuiltImage:
    """A base of one package: a static busybox, as dpkg would have installed it on Debian 13; `motd` sets it apart."""
    busybox = Path(need("busybox")).read_bytes()
    deb = Deb(name="busybox-static", version="1:1.37.0-6", architecture="amd64", files={"bin/busybox": busybox})
    accounts = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    }
    files: dict[str, Content] = {**os_release(), **dpkg_files([deb]), **accounts}
    files["bin/busybox"] = File(busybox, mode=0o755)
    files |= {f"bin/{name}": Link("busybox") for name in ("sh", "sleep", "sed", "cat", "id")}
    files |= {"etc/motd": motd, **{f"etc/{name}": "" for name in ("hosts", "hostname", "resolv.conf")}}
    folders = dict.fromkeys(("dev", "proc", "sys", "run", "root", "srv", "srv/app"))
    return image(
        [with_parents({**{f"{name}/": Dir() for name in folders}, "tmp/": Dir(mode=0o1777), **files})],
        entrypoint=["/srv/app/main"],
        env=["PATH=/bin"],
        created="2026-11-20T00:00:00Z",
    )


def app_image(base: BuiltImage, marker: str = "", **changes: object) -> BuiltImage:
    """An application on the base: a program and a Python package; `marker` makes its layer another one."""
    files: dict[str, Content] = dict(python_files(Wheel(name="itsdangerous", version="2.2.0", licence="BSD-3-Clause")))
    files |= {"srv/app/main": File(PROGRAM, mode=0o755), "srv/app/data": File(b"not a program", mode=0o644)}
    if marker:
        files["srv/app/marker"] = marker
    options: dict[str, object] = {"user": "65534:65534", "created": "2026-11-20T00:00:00Z", **changes}
    return image([files], parent=base, **options)  # type: ignore[arg-type]  # values of several types


def with_parents(files: Mapping[str, Content]) -> dict[str, Content]:
    """`files` with every parent folder in front of what is in it."""
    ordered: dict[str, Content] = {}
    for path, content in files.items():
        parts = path.rstrip("/").split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            ordered.setdefault("/".join(parts[:depth]) + "/", Dir())
        ordered[path] = content
    return ordered


@dataclass(slots=True, kw_only=True)
class Chain:
    """The registry with its people; everybody works at `desk`, with every account and key at hand."""

    live: WholeRegistry
    desk: Desk
    base: BuiltImage
    app: BuiltImage

    @property
    def address(self) -> str:
        """The registry's name."""
        return self.live.address

    def key(self, owner: str) -> Path:
        """The private key file of an officer, a root or the team."""
        return self.desk.folder / f"{owner}.key"

    def keys(self, *owners: str) -> tuple[object, ...]:
        """The arguments by which these sign."""
        return tuple(word for owner in owners for word in ("--key", self.key(owner)))

    def name(self, repository: str, tag: str = "1") -> str:
        """A reference."""
        return f"{self.address}/{repository}:{tag}"

    def set_up(self) -> None:
        """Keys, accounts, trust, policy, advisories, a first revocation list, and the enrolled host."""
        desk, live, ring = self.desk, self.live, self.live.ring
        for owner, key in {**ring.roots, **ring.officers, "team": ring.team}.items():
            write_private(self.key(owner), key)
        (desk.folder / "trust.json").write_bytes(ring.envelope)
        login = ("login", self.address, "--plain-http")
        shown = desk.fine(*login, "--bootstrap", "--account", "admin", "--show", "--json", send=f"{live.token}\n")
        live.secrets["admin"] = json.loads(shown)["secret"]
        for name, role in PEOPLE.items():
            made = desk.fine("accounts", "add", self.address, name, "--role", role, "--account", "admin", "--json")
            live.secrets[name] = json.loads(made)["secret"]
            desk.fine(*login, "--account", name, send=live.secrets[name] + "\n")
        desk.fine("trust", "publish", self.address, "trust.json", "--account", "alice")
        desk.fine("policy", "sign", POLICY, *self.keys("alice", "bob"), "--out", "policy.signed")
        desk.fine("policy", "publish", self.address, "policy.signed", "--account", "alice")
        desk.fine("advisories", "import", self.address, ADVISORIES, "--account", "admin")
        first = ("revoke", "--registry", self.address, "--reason", "the first list", "--account", "alice")
        desk.fine(*first, *self.keys("alice", "bob"))
        self.enrol(desk)

    def enrol(self, desk: Desk) -> None:
        """Enrol the host whose store is that of `desk`."""
        enrol = ("host", "enrol", self.address, "--trust", self.desk.folder / "trust.json", "--plain-http")
        desk.fine(*enrol, "--account", "host-1", send=self.live.secrets["host-1"] + "\n")

    def push(self, built: BuiltImage, repository: str, tag: str = "1") -> str:
        """Push with skopeo, as `dev`; returns the reference."""
        layout = built.write_layout(self.desk.folder / f"layout-{built.digest.hex[:12]}", "pushed")
        target = self.name(repository, tag)
        done = self.skopeo(f"oci:{layout}:pushed", target)
        assert done.code == 0, done
        return target

    def skopeo(self, source: str, target: str) -> Result:
        """Copy an image to the registry with skopeo."""
        login = f"--dest-creds=dev:{self.live.secrets['dev']}"
        return self.desk.run(
            *(need("skopeo"), "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", login),
            *(source, f"docker://{target}"),
        )

    def approve_base(self, reference: str) -> None:
        """Two officers approve it as a base."""
        for officer in ("alice", "bob"):
            words = ("approve", reference, "--level", "base", *self.keys(officer), "--account", "alice")
            self.desk.fine(*words)

    def approve_top(self, reference: str, count: int = 1) -> None:
        """The team approves its top layers."""
        words = ("approve", "--layer", "--top", count, reference, "--level", "application", *self.keys("team"))
        self.desk.fine(*words, "--account", "dev")

    def cleared(self, reference: str) -> None:
        """Wait until it is cleared."""
        done = self.desk.pratique("status", reference, "--wait", "20", "--account", "dev")
        assert done.code == 0, (done, self.live.log())


def tree(*folders: Path) -> dict[str, str]:
    """Every file, link and folder below `folders` with its mode and what it holds, to be compared."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                found[str(path)] = f"-> {path.readlink()}"
            elif path.is_file():
                found[str(path)] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            else:
                found[str(path)] = f"{path.lstat().st_mode:o}"
    return found


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found: list[int] = []
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found += [child, *descendants(child)]
    return found
