"""A host with a broker: a cleared busybox in its store, and the command that asks the broker.

    desk.start()
    desk.run("sh", "-c", "echo hello").out == "hello\n"

What was there before a test is there after it, and no more: the independent look of tests/support/leftovers.py.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ocispec.platform import Platform
from runtime import container
from runtime.host import Host
from runtime.pull import Pulled, pull
from runtime.record import Container
from tests.runtime.boxes import REPOSITORY, Result, busybox_files, reap
from tests.support import leftovers
from tests.support.cleared import POLICY, ClearedImage, ClearedRegistry
from tests.support.images import Content, image

AMD64 = Platform.parse("linux/amd64")
LOOSE = POLICY.replace(b"command_override: false", b"command_override: true").replace(
    b"networks: [none]", b"networks: [none, host]"
)
_NUMBER = itertools.count()


@dataclass(slots=True)
class Stocked:
    """A registry that runs, and a host that has pulled from it."""

    registry: ClearedRegistry
    host: Host
    app: ClearedImage


@contextmanager
def stocked(folder: Path) -> Iterator[Stocked]:
    """A host in `folder` with an application that is a whole busybox, under a policy that lets commands be chosen."""
    files: dict[str, Content] = dict(busybox_files())
    files |= {
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
        "etc/group": b"root:x:0:\napp:x:1000:\nextra:x:1001:app\n",
    }
    base = image([files])
    with ClearedRegistry() as registry:
        registry.policy = registry._sign_policy(LOOSE)
        layer: dict[str, Content] = {"srv/": b"", "srv/name": b"app"}
        built = image([layer], parent=base, entrypoint=("/bin/env", "--"), user="app", env=("PATH=/bin",))
        app = registry.clear(built)
        host = registry.enrol(folder)
        pulled = pull(app.reference, host=host, clock=registry.clock, platform=AMD64, access=registry.access)
        assert isinstance(pulled, Pulled), pulled
        yield Stocked(registry, host, app)


@dataclass(slots=True)
class Desk:
    """One test's state folder and broker."""

    folder: Path
    stock: Stocked
    parked: int = 2
    start_gid: int = 0
    look_gid: int = 0
    fault: str = ""
    parent: str = field(default_factory=lambda: f"pratique-test-{os.getpid()}-b{next(_NUMBER)}")
    broker: subprocess.Popen[bytes] | None = None
    before: dict[str, list[str]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    @property
    def log(self) -> str:
        """What the brokers said."""
        return (self.folder / "broker.log").read_text()

    def set_clock(self, now: datetime) -> None:
        """What time it is for brokers."""
        unfinished = self.folder / "clock.new"
        unfinished.write_text(now.isoformat())
        unfinished.replace(self.folder / "clock")

    def __enter__(self) -> Desk:
        self.set_clock(self.stock.registry.now)
        (self.folder / "broker.log").touch()
        self.before = leftovers.take(os.getpid(), "pratique-test-*")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if kind is None:
            left = self.left()
            assert left == [], (left, self.log)

    def start(self, within: float = 15) -> None:
        """Start a broker, and return when the first processes are parked."""
        words = [str(self.stock.host.store.path), str(self.state), f"{self.state}.sock", self.parent]
        words += [str(self.folder / "clock"), str(self.parked), str(self.start_gid), str(self.look_gid)]
        said = self.log.count("is up\n")
        with (self.folder / "broker.log").open("ab") as log:
            command = [
                sys.executable,
                "-m",
                "tests.runtime.broker.serve",
                *words,
                *([self.fault] if self.fault else []),
            ]
            self.broker = subprocess.Popen(command, cwd=REPOSITORY, stderr=log, stdin=subprocess.DEVNULL)
        self.until(lambda: self.log.count("is up\n") > said, within)

    def stop(self) -> None:
        """End the broker as systemd does."""
        if self.broker is not None:
            self.broker.terminate()
            self.broker.wait(20)
            self.broker = None

    def kill(self) -> None:
        """Kill the broker."""
        assert self.broker is not None
        self.broker.kill()
        self.broker.wait(20)
        self.broker = None

    def left(self) -> list[str]:
        """What there is now and was not before, of ours."""
        for _ in range(25):
            reap()
            found = leftovers.settle(self.before, within=0.2, under=os.getpid(), cgroups=f"{self.parent}*")
            ours = [line for line in found if self._ours(line)]
            if not ours:
                break
        return ours

    def _ours(self, line: str) -> bool:
        if " postgres " in line:
            return False
        return not line.startswith(("mount ", "loop device ")) or str(self.folder) in line or self.parent in line

    @property
    def environment(self) -> dict[str, str]:
        """Of the command."""
        return {**os.environ, "PRATIQUE_STORE": str(self.stock.host.store.path), "PRATIQUE_STATE": str(self.state)}

    def command(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """The command that runs `words` in the container."""
        asked = ["run", "--pull", "never", *options, str(self.stock.app.reference), *words]
        return [sys.executable, "-m", "pratique", *asked]

    def popen(self, *words: str, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        pipe = subprocess.PIPE
        command = self.command(*words, options=options)
        return subprocess.Popen(command, env=self.environment, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(self, *words: str, options: Sequence[str] = (), send: bytes = b"") -> Result:
        """Run it and wait."""
        with self.popen(*words, options=options) as process:
            out, err = process.communicate(send, timeout=60)
        return Result(process.returncode, os.fsdecode(out), os.fsdecode(err))

    def sh(self, script: str, *, options: Sequence[str] = (), send: bytes = b"") -> Result:
        """Run a shell script in the container."""
        return self.run("sh", "-c", script, options=options, send=send)

    def containers(self) -> dict[str, Container]:
        """What is known of containers, by name."""
        return {str(found.name): found for found in container.list_containers(self.state)}

    def slots(self) -> int:
        """How many slots there are."""
        return len(list((self.state / "slots").iterdir()))

    def until(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        """Wait for something that others bring about."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it does not happen: {self.log}"
            time.sleep(0.02)
