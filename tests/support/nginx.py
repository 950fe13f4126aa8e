"""nginx as a plain process on a loopback port, with the site that deploy/ has for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.processes import end, wait_for_port
from tests.support.tools import need

SITE: Final = Path(__file__).parents[2] / "deploy" / "nginx.conf"

_MAIN: Final = """\
daemon off;
user {user};
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    log_format ids '$remote_addr $status $request_id $request';
    access_log {folder}/access.log ids;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """Where it listens, the folder of its logs and temporary files, and its first process."""

    port: int
    folder: Path
    pid: int

    def buffered(self) -> list[str]:
        """Files that its workers put bodies into: it opens them, and removes their names at once."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        found: list[str] = []
        for link in (link for child in children for link in Path(f"/proc/{child}/fd").iterdir()):
            with suppress(OSError):
                found.append(str(link.readlink()))
        kept = (f"{self.folder}/body/", f"{self.folder}/proxy/")
        return [name for name in found if name.startswith(kept)]


@contextmanager
def nginx(folder: Path, port: int, changes: Mapping[str, str]) -> Iterator[Nginx]:
    """nginx with the site of deploy/, in which each of `changes` is made; each must be there to be made."""
    folder.mkdir(parents=True)
    site = SITE.read_text()
    for old, new in changes.items():
        assert old in site, old
        site = site.replace(old, new)
    (folder / "site.conf").write_text(site)
    main = folder / "nginx.conf"
    main.write_text(_MAIN.format(folder=folder, user="root"))
    log = folder / "nginx.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [need("nginx"), "-c", str(main), "-p", str(folder), "-e", str(folder / "error.log")],
            stdout=output,
            stderr=output,
        )
    try:
        wait_for_port(port, process, log)
        yield Nginx(port, folder, process.pid)
    finally:
        end(process)
