"""What the judge asks of the signer; `client.py` asks the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ocispec.digest import Digest
from registry.signer.signer import Judged, SignedTag, Status


class Signing(Protocol):
    """The signer. Each method raises SignerRefusedError or SignerUnavailableError."""

    def status(self) -> Status:
        """See `Signer.status`."""

    def take_trust(self, envelope: bytes) -> None:
        """See `Signer.take_trust`."""

    def learn(self, envelope: bytes) -> None:
        """See `Signer.learn`."""

    def judge(self, evidence: bytes) -> Judged:
        """See `Signer.judge`."""

    def clear_index(self, repository: str, raw: bytes, media_type: str, children: Sequence[bytes]) -> bytes:
        """See `Signer.clear_index`."""

    def sign_tag(self, repository: str, tag: str, clearance: bytes) -> SignedTag:
        """See `Signer.sign_tag`."""

    def date_list(self) -> bytes:
        """See `Signer.date_list`."""

    def sign_checkpoint(self, records: int, head: Digest) -> bytes:
        """See `Signer.sign_checkpoint`."""
