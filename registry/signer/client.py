"""Asking the signer: the same words as `signer.py`, over its socket."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import SpecError
from policy import canonical, codec
from policy.errors import PolicyError
from registry.signer.protocol import Message, SignerRefusedError, SignerUnavailableError, receive, send
from registry.signer.signer import Judged, SignedTag, SimpleSignature, Status
from registry.sockets import connect
from registry.telemetry import metrics, traces

ANSWER_SECONDS: Final = 60.0
"""How long an answer may take: the signer serves one request at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerClient:
    """The signer that listens at `path`. Each method raises SignerRefusedError or SignerUnavailableError."""

    path: Path
    seconds: float = ANSWER_SECONDS

    def status(self) -> Status:
        """As `Signer.status`."""
        reply = self._ask("status")
        members, what = reply.members, "signer's answer"
        return Status(
            registry=fields.text(members, "registry", what=what),
            key=fields.text(members, "key", what=what),
            memory=fields.text(members, "memory", what=what),
            pem=_part(reply, 0),
            trust=fields.integer(members, "trust", what=what),
            revocations=fields.integer(members, "revocations", what=what),
            policy=fields.text(members, "policy", what=what),
            policy_version=fields.integer(members, "policyVersion", what=what),
        )

    def take_trust(self, envelope: bytes) -> None:
        """As `Signer.take_trust`."""
        self._ask("trust", parts=[envelope])

    def learn(self, envelope: bytes) -> None:
        """As `Signer.learn`."""
        self._ask("learn", parts=[envelope])

    def judge(self, evidence: bytes) -> Judged:
        """As `Signer.judge`."""
        reply = self._ask("judge", parts=[evidence])
        try:
            decision = codec.decode_decision(_part(reply, 0))
        except PolicyError as error:
            raise SignerUnavailableError(f"signer {self.path}: its Decision cannot be read: {error}") from error
        return Judged(
            decision=decision,
            clearance=reply.parts[1] if len(reply.parts) > 1 else None,
            obstacle=fields.text(reply.members, "obstacle", what="signer's answer", default=""),
        )

    def clear_index(self, repository: str, raw: bytes, media_type: str, children: Sequence[bytes]) -> bytes:
        """As `Signer.clear_index`."""
        members = {"repository": repository, "mediaType": media_type}
        return _part(self._ask("index", members, [raw, *children]), 0)

    def sign_tag(self, repository: str, tag: str, clearance: bytes) -> SignedTag:
        """As `Signer.sign_tag`."""
        reply = self._ask("tag", {"repository": repository, "tag": tag}, [clearance])
        digests = fields.texts(reply.members, "digests", what="signer's answer", limit=1024)
        simple = tuple(
            SimpleSignature(
                digest=Digest.parse(digest),
                payload=_part(reply, 1 + 2 * position),
                signature=_part(reply, 2 + 2 * position),
            )
            for position, digest in enumerate(digests)
        )
        return SignedTag(statement=_part(reply, 0), simple=simple)

    def date_list(self) -> bytes:
        """As `Signer.date_list`."""
        return _part(self._ask("date"), 0)

    def sign_checkpoint(self, records: int, head: Digest) -> bytes:
        """As `Signer.sign_checkpoint`."""
        return _part(self._ask("checkpoint", {"records": records, "head": str(head)}), 0)

    def _ask(
        self, op: str, members: Mapping[str, canonical.Canonical] | None = None, parts: Sequence[bytes] = ()
    ) -> Message:
        try:
            with (
                traces.span(f"signer {op}"),
                metrics.SIGNER_SECONDS.labels(op).time(),
                connect(self.path, socket.SOCK_STREAM, timeout=self.seconds) as connection,
            ):
                send(connection, {**(members or {}), "op": op}, parts)
                reply = receive(connection, what="signer's answer", seconds=self.seconds)
        except (OSError, SpecError) as error:
            metrics.SIGNER_FAILURES.inc()
            raise SignerUnavailableError(f"signer {self.path}: {error}") from error
        code = reply.members.get("refused")
        if isinstance(code, str):
            metrics.SIGNER_REFUSALS.labels(metrics.CODES.bounded(code)).inc()
            subject = fields.text(reply.members, "subject", what="signer's answer", default="")
            raise SignerRefusedError(
                code, subject, fields.text(reply.members, "detail", what="signer's answer", default="")
            )
        if reply.members.get("ok") is not True:
            metrics.SIGNER_FAILURES.inc()
            failed = fields.text(reply.members, "failed", what="signer's answer", default="no answer")
            raise SignerUnavailableError(f"signer {self.path}: {failed}")
        return reply


def _part(reply: Message, position: int) -> bytes:
    if position >= len(reply.parts):
        raise SignerUnavailableError(f"signer's answer: {len(reply.parts)} parts, expected more than {position}")
    return reply.parts[position]
