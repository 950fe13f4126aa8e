"""The registries that the suite is run on: this one, whole, and Debian's docker-registry beside it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.conformance.suite import Target
from tests.support.live import whole_registry
from tests.support.processes import end, free_port, wait_for_port

PEER: Final = "docker-registry"

_CONFIGURATION: Final = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def ours() -> Iterator[Target]:
    """A whole registry: access control, signer, judge, a policy in force, and scanning of all that arrives."""
    with whole_registry() as live:
        live.publish()
        yield Target(name="pratique", address=live.address, user="pusher", password=live.secrets["pusher"])


@contextmanager
def peer() -> Iterator[Target]:
    """docker-registry, with deletion switched on and without access control."""
    with tempfile.TemporaryDirectory(prefix="pratique-peer-") as name:
        folder, port = Path(name), free_port()
        configuration, log = folder / "config.yml", folder / "log"
        configuration.write_text(_CONFIGURATION.format(folder=folder / "store", port=port))
        with log.open("wb") as output:
            process = subprocess.Popen([PEER, "serve", configuration], stdout=output, stderr=output)
        try:
            wait_for_port(port, process, log)
            yield Target(name=f"{PEER} {_version()}", address=f"127.0.0.1:{port}")
        finally:
            end(process)


def _version() -> str:
    said = subprocess.run([PEER, "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[-1]
