"""Debian's PostgreSQL as a plain process, with a fresh database for each test.

It runs as the user `postgres` where the tests are root (it refuses to be root itself), listens on a socket in its own
folder alone, and ends with the process that started it, however that ends. Its locale is not bytewise, so a
list or comparison that leans on the locale is found; fsync is on, as in
production, where a test does not say otherwise.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import make_url

from registry.catalogue.database import Catalogue
from tests.support.processes import end
from tests.support.tools import lacking

ROLE: Final = "pratique"
"""Owns the databases, and may nothing else."""

_TEMPLATE: Final = "pratique_template"


def programs() -> Path:
    """Debian's folder of the newest server's programs; where there is none, see `tools.lacking`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        lacking("postgresql")
    return found[-1]


@dataclass(slots=True, kw_only=True)
class Postgres:
    """A running server; `folder` holds its socket and data."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str, *, role: str = ROLE) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{role}@/{database}?host={self.folder}"

    def admin(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser."""
        with psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True) as conn:
            cursor = conn.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> str:
        """The URL of a new database without tables."""
        return self._create("template0")

    def database(self) -> str:
        """The URL of a new database with the catalogue's tables."""
        return self._create(_TEMPLATE)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected."""
        self.admin(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        log = (self.folder / "log").open("ab")
        options = {"listen_addresses": "", "unix_socket_directories": str(self.folder), **self.settings}
        flags = [f"--{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [*_as_owner(), str(programs() / "postgres"), "-D", str(self.folder / "data"), *flags],
            stdout=log,
            stderr=log,
            cwd=self.folder,
        )
        log.close()
        deadline = time.monotonic() + 60
        while True:
            try:
                self.admin("SELECT 1")
            except psycopg.OperationalError:
                said = (self.folder / "log").read_text()[-4000:]
                assert self.process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it; who is connected is cut off (SIGINT: fast shutdown)."""
        if self.process is not None:
            self.process.send_signal(2)
            end(self.process, seconds=30)
            self.process = None

    def kill(self) -> None:
        """End it at once, as a crash would (SIGQUIT: immediate shutdown, recovery at the next start)."""
        assert self.process is not None
        self.process.send_signal(3)
        self.process.wait(30)
        self.process = None

    def prepare(self) -> None:
        """Make the role, and the template with the catalogue's tables."""
        self.admin(f"CREATE ROLE {ROLE} LOGIN")
        self.admin(f"CREATE DATABASE {_TEMPLATE} OWNER {ROLE} TEMPLATE template0")
        catalogue = Catalogue(self.url(_TEMPLATE))
        catalogue.create()
        catalogue.close()

    def _create(self, template: str) -> str:
        name = f"test_{next(self._numbers)}"
        self.admin(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return self.url(name)


@contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """A server of one's own, e.g. `postgres(max_connections="20")`."""
    folder = Path(tempfile.mkdtemp(prefix="pratique-pg-"))  # short: the path of a socket has at most 107 bytes
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        folder.chmod(0o755)
        _make_cluster(folder)
        server = Postgres(folder=folder, settings=settings)
        server.start()
        try:
            server.prepare()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _make_cluster(folder: Path) -> None:
    made = subprocess.run(
        [
            *_as_owner(),
            *(
                str(programs() / "initdb"),
                "-D",
                str(folder / "data"),
                "--username=postgres",
                "--auth=trust",
                "--no-sync",
            ),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert made.returncode == 0, made.stderr


def _as_owner() -> list[str]:
    """The words before a command that give root up, and end it with whoever started it."""
    user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *user, "--pdeathsig=QUIT"]
