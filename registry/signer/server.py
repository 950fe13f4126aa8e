"""The signer's loop: one connection, one request, one answer at a time; only the judge's user may ask."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from policy import canonical, codec
from policy.errors import PolicyError, TrustError
from registry.errors import RegistryError
from registry.signer.protocol import Message, receive, send
from registry.signer.signer import Signer
from registry.sockets import peer_uid

REQUEST_SECONDS: Final = 10.0
"""How long one request may take to arrive, and its answer to be read: the loop is held up meanwhile."""

POLL_SECONDS: Final = 0.25

Answer = tuple[dict[str, canonical.Canonical], tuple[bytes, ...]]
_Handler = Callable[[Signer, Message], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Serves `signer` on `listener` to processes of the uids in `allowed`."""

    listener: socket.socket
    signer: Signer
    allowed: Collection[int]

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serve until `should_stop` says so; it is asked every POLL_SECONDS, and between two requests."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            while not should_stop():
                if selector.select(timeout=POLL_SECONDS):
                    connection, _ = self.listener.accept()
                    with connection, contextlib.suppress(OSError):
                        self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        if peer_uid(connection) not in self.allowed:
            return
        try:
            request = receive(connection, what="request", seconds=REQUEST_SECONDS)
            members, parts = answer(self.signer, request)
        except SpecError as error:
            members, parts = _refused("malformed", "request", str(error)), ()
        connection.settimeout(REQUEST_SECONDS)
        send(connection, members, parts)


def answer(signer: Signer, request: Message) -> Answer:
    """What `signer` answers to `request`: `ok`, or `refused` with code, subject and detail, or `failed`."""
    try:
        members, parts = _handler(request)(signer, request)
    except TrustError as error:
        return _refused(error.code, error.subject, error.detail), ()
    except (PolicyError, SpecError) as error:
        return _refused("malformed", "request", str(error)), ()
    except (RegistryError, OSError) as error:
        return {"failed": str(error)[:1000]}, ()
    return {**members, "ok": True}, parts


def _handler(request: Message) -> _Handler:
    name = fields.text(request.members, "op", what="request")
    if name not in _HANDLERS:
        raise SpecError(f"request: {name[:40]!r} is nothing that the signer does")
    return _HANDLERS[name]


def _refused(code: str, subject: str, detail: str) -> dict[str, canonical.Canonical]:
    return {"refused": code, "subject": subject[:1000], "detail": detail[:4000]}


def _expect(request: Message, *names: str, parts: int | None) -> JsonObject:
    """The members of a request that has exactly these, and as many parts (None: any number, at least one)."""
    extra = set(request.members) - {"op", *names}
    if extra:
        raise SpecError(f"request: unknown member {min(extra)[:40]!r}")
    if (parts is None and not request.parts) or (parts is not None and len(request.parts) != parts):
        raise SpecError(f"request: {len(request.parts)} parts, expected {'some' if parts is None else parts}")
    return request.members


def _status(signer: Signer, request: Message) -> Answer:
    _expect(request, parts=0)
    status = signer.status()
    return {
        "registry": status.registry,
        "key": status.key,
        "memory": status.memory,
        "trust": status.trust,
        "revocations": status.revocations,
        "policy": status.policy,
        "policyVersion": status.policy_version,
    }, (status.pem,)


def _trust(signer: Signer, request: Message) -> Answer:
    _expect(request, parts=1)
    trust = signer.take_trust(request.parts[0])
    return {"version": trust.root.version, "digest": str(trust.digest)}, ()


def _learn(signer: Signer, request: Message) -> Answer:
    _expect(request, parts=1)
    signed = signer.learn(request.parts[0])
    return {"digest": str(signed.digest)}, ()


def _judge(signer: Signer, request: Message) -> Answer:
    _expect(request, parts=1)
    judged = signer.judge(request.parts[0])
    decision = codec.encode_decision(judged.decision)
    parts = (decision,) if judged.clearance is None else (decision, judged.clearance)
    return {"obstacle": judged.obstacle[:2000]}, parts


def _index(signer: Signer, request: Message) -> Answer:
    members = _expect(request, "repository", "mediaType", parts=None)
    raw, *children = request.parts
    repository = fields.text(members, "repository", what="request")
    media_type = fields.text(members, "mediaType", what="request")
    return {}, (signer.clear_index(repository, raw, media_type, children),)


def _tag(signer: Signer, request: Message) -> Answer:
    members = _expect(request, "repository", "tag", parts=1)
    repository, tag = (fields.text(members, name, what="request") for name in ("repository", "tag"))
    signed = signer.sign_tag(repository, tag, request.parts[0])
    parts = [signed.statement]
    for simple in signed.simple:
        parts += [simple.payload, simple.signature]
    return {"digests": [str(simple.digest) for simple in signed.simple]}, tuple(parts)


def _date(signer: Signer, request: Message) -> Answer:
    _expect(request, parts=0)
    return {}, (signer.date_list(),)


def _checkpoint(signer: Signer, request: Message) -> Answer:
    members = _expect(request, "records", "head", parts=0)
    records = fields.integer(members, "records", what="request", minimum=1)
    return {}, (signer.sign_checkpoint(records, Digest.parse(fields.text(members, "head", what="request"))),)


_HANDLERS: Final[Mapping[str, _Handler]] = {
    "status": _status,
    "trust": _trust,
    "learn": _learn,
    "judge": _judge,
    "index": _index,
    "tag": _tag,
    "date": _date,
    "checkpoint": _checkpoint,
}
"""All that can be asked. There is no way to ask for a revocation list, a policy, or a signature over given bytes."""
