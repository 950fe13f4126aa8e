"""Several registries that are one: a PostgreSQL catalogue, an S3 bucket, one signing key with a memory that they share.

with fleet(server, endpoint, folder) as lives:
    lives[0].publish()
    lives[1].push("team/app", image, "1")
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml

from policy.key_files import write_private
from registry.settings import load
from tests.support import trust
from tests.support.live import WholeRegistry, now
from tests.support.postgres import Postgres
from tests.support.processes import free_port, wait_until_closed
from tests.support.s3 import bucket, members

NAME: Final = "registry.test:5000"
SIGNER_ROLE: Final = "signer"


@contextmanager
def fleet(server: Postgres, endpoint: str, *, count: int = 3, **settings: object) -> Iterator[list[WholeRegistry]]:
    """`count` running registries, with one account a role."""
    with ExitStack() as stack:
        lives = _prepared(stack, server, endpoint, count, settings)
        for live in lives:
            live.start()
            stack.callback(live.stop)
        lives[-1].bootstrap()  # each start made a new token, since none was used
        yield lives


def kill(live: WholeRegistry) -> None:
    """SIGKILL to every process of one registry at once, as if its machine had lost power."""
    assert live.process is not None
    assert live.process.stdout is not None
    family = _descendants(live.process.pid)
    for pid in family:
        os.kill(pid, signal.SIGSTOP)  # none sees another die
    for pid in {*family, *_descendants(live.process.pid)}:
        os.kill(pid, signal.SIGKILL)
    live.process.wait()
    live.process.stdout.close()
    live.process = None
    wait_until_closed(live.port)


def _prepared(
    stack: ExitStack, server: Postgres, endpoint: str, count: int, settings: dict[str, object]
) -> list[WholeRegistry]:
    folder = Path(tempfile.mkdtemp(prefix="pratique-fleet-"))
    stack.callback(shutil.rmtree, folder)
    folder.chmod(0o755)
    ring = trust.keyring(registry=NAME, levels=("base", "application"), now=now())
    catalogue, memory = server.empty(), _signers_database(server)
    storage = members(bucket(endpoint, f"fleet-{os.urandom(4).hex()}"))
    secrets: dict[str, str] = {}
    lives = []
    for number in range(count):
        home = folder / str(number)
        signer = home / "data" / "signer"
        signer.mkdir(mode=0o700, parents=True)
        write_private(signer / "key.pem", ring.registry)
        home.chmod(0o755)
        url = home / "memory.url"
        url.write_text(memory)
        url.chmod(0o600)
        told = {
            "name": NAME,
            "data": str(home / "data"),
            "catalogue": catalogue,
            "storage": storage,
            "signer": {"memory": str(url)},
            "http": {"listen": f"127.0.0.1:{free_port()}", "threads": 8},
            "judge": {"push_wait_ms": 5000},
            **settings,
        }
        path = home / "registry.yaml"
        path.write_text(yaml.safe_dump(told))
        lives.append(WholeRegistry(folder=home, settings=load(path), ring=ring, secrets=secrets))
    return lives


def _signers_database(server: Postgres) -> str:
    """A database that the catalogue's role may not even connect to."""
    if (SIGNER_ROLE,) not in server.admin("SELECT rolname FROM pg_roles"):
        server.admin(f"CREATE ROLE {SIGNER_ROLE} LOGIN")
    name = f"memory_{os.urandom(4).hex()}"
    server.admin(f"CREATE DATABASE {name} OWNER {SIGNER_ROLE} TEMPLATE template0")
    server.admin(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    return server.url(name, role=SIGNER_ROLE)


def _descendants(top: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {top}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
