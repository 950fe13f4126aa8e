"""Where the registry's inner processes keep their things, below the data folder.

signer/key.pem          the private key (signer only, 0600 in a folder of 0700)
signer/memory.sqlite    what the signer may not forget
registry.pub            the public key, for everybody
run/*.sock              sockets
run/empty/              the root of confined children
advisories/             uploaded advisory data, and the snapshot made of them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry.settings import Settings


@dataclass(frozen=True, slots=True)
class Places:
    """The places of one registry."""

    settings: Settings

    @property
    def signer(self) -> Path:
        """The signer's own folder."""
        return self.settings.data / "signer"

    @property
    def signer_key(self) -> Path:
        """The private key."""
        return self.signer / "key.pem"

    @property
    def signer_memory(self) -> Path:
        """The signer's memory."""
        return self.signer / "memory.sqlite"

    @property
    def public_key(self) -> Path:
        """The public key."""
        return self.settings.data / "registry.pub"

    @property
    def signer_socket(self) -> Path:
        """Where the signer listens."""
        return self.settings.run_folder / "signer.sock"

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens."""
        return self.settings.run_folder / "keeper.sock"

    @property
    def draining(self) -> Path:
        """Is there once the registry is to stop: readiness turns."""
        return self.settings.run_folder / "draining"

    @property
    def log_level(self) -> Path:
        """Says how much is logged, to processes that may not read the settings."""
        return self.settings.run_folder / "log-level"

    @property
    def judge_alive(self) -> Path:
        """Written by the judge while it works and reaches the signer."""
        return self.settings.run_folder / "judge.alive"

    @property
    def metrics(self) -> Path:
        """Where processes count (prometheus_client's multiprocess mode): a link, `telemetry/memory.py`."""
        return self.settings.run_folder / "metrics"

    @property
    def mirror_sign(self) -> Path:
        """Is there once the process that fetches from other registries is at work."""
        return self.settings.run_folder / "mirror"

    @property
    def cell(self) -> Path:
        """The empty folder that confined children have as their root."""
        return self.settings.run_folder / "empty"

    @property
    def advisories(self) -> Path:
        """Uploaded advisory data, and the snapshot."""
        return self.settings.data / "advisories"
