"""Show and verify a registry's audit trail; take a decision again from its evidence.

pratique audit show registry.example:5000 [--after 100] [--changes]
    number, time, who, from where, event, subject, and the change; --changes leaves out who read what
pratique audit verify registry.example:5000 --trust trust.json
    reads the whole chain: no record is changed, missing or put in later, and the registry signed the head
pratique audit recompute registry.example:5000 sha256:...        or registry.example:5000/shop/web:1
    fetches the evidence and the policy that the decision names by digest, proves their signatures, decides again
    here, and compares

Exit codes: verify 1 for a broken chain; recompute 3 where the decision comes out another. Without --trust the
registry's own trust.json is believed, which proves only that the registry agrees with itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocispec.strictjson import JsonValue
from pratique import arguments as shared
from pratique import clock
from pratique.exits import CommandError, Exit, UsageError
from pratique.output import as_json, line

if TYPE_CHECKING:
    from ocispec.digest import Digest
    from ocispec.fields import JsonObject
    from policy.model import Decision, Signed
    from policy.statements import Statement
    from policy.trust import Trust
    from pratique.control import Control
    from registry.audit import Record

_MAX: Final = 4 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `show`, `verify` and `recompute`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="show|verify|recompute")
    show = verbs.add_parser("show", help="print the records")
    verify = verbs.add_parser("verify", help="check the chain and the signed checkpoints over it")
    recompute = verbs.add_parser("recompute", help="take a decision again from its evidence")
    for verb in (show, verify, recompute):
        verb.add_argument("registry", metavar="REGISTRY" if verb is not recompute else "REGISTRY|IMAGE")
        shared.add_account(verb)
        shared.add_json(verb)
    show.add_argument("--event", metavar="NAME", action="append", help="only events of this kind; may be repeated")
    show.add_argument("--changes", action="store_true", help="leave out the reads")
    show.add_argument("--after", metavar="N", type=int, default=0, help="only records with a higher number")
    recompute.add_argument("digest", metavar="DIGEST", nargs="?", help="of a manifest; not needed with an IMAGE")
    for verb in (verify, recompute):
        verb.add_argument("--trust", metavar="FILE", type=Path, help="trust.json to prove signatures by")


def run(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    match arguments.verb:
        case "show":
            return _show(arguments)
        case "verify":
            return _verify(arguments)
        case _:
            return _recompute(arguments)


# ---- show and verify ------------------------------------------------------------------------------------------------


def _pages(registry: Control, after: int) -> Iterator[tuple[list[JsonObject], list[bytes]]]:
    from ocispec import fields

    while True:
        records, checkpoints = registry.audit(after)
        yield records, checkpoints
        if not records:
            return
        last = fields.integer(records[-1], "seq", what="audit record")
        if last <= after:
            raise CommandError(f"audit: a page ends with record {last}, expected a number above {after}")
        after = last


def _show(arguments: argparse.Namespace) -> int:
    from pratique.control import control

    registry = control(arguments.registry, arguments.account)
    for records, _ in _pages(registry, max(0, arguments.after)):
        for record in records:
            if not _shown(record, arguments):
                continue
            if arguments.json:
                # One record a line: the trail is long, and a reader need not hold all of it.
                print(json.dumps(dict(record), sort_keys=True))
            else:
                _print(record)
    return Exit.FINE


def _shown(record: JsonObject, arguments: argparse.Namespace) -> bool:
    event = record.get("event")
    return not (arguments.changes and event == "read") and (arguments.event is None or event in arguments.event)


def _print(record: JsonObject) -> None:
    from pratique.control import text_of

    seq, time, event, who, source, subject, before, after = (
        text_of(record, name)
        for name in ("seq", "time", "event", "principal", "source", "subject", "before", "after")
    )  # fmt: skip
    origin = f" from {source}" if source else ""
    change = f": {before} -> {after}" if before else (f": {after}" if after else "")
    line(f"{seq:>6}  {time}  {event:<10} {who}{origin}  {subject}{change}")


def _verify(arguments: argparse.Namespace) -> int:
    from pratique.control import control
    from registry.audit import Record, verify

    registry = control(arguments.registry, arguments.account)
    trust = _trust(arguments, registry)
    records: list[Record] = []
    checkpoints: list[bytes] = []
    for page, signed in _pages(registry, 0):
        records += [Record.from_json(item, what="audit record") for item in page]
        checkpoints += signed
    report = verify(
        records,
        checkpoints,
        verify_envelope=lambda envelope: _as_of_issue(trust, envelope),
        registry=registry.remote.registry,
    )
    if arguments.json:
        problems: list[JsonValue] = [{"code": p.code, "record": p.seq, "detail": p.detail} for p in report.problems]
        as_json({"records": report.records, "covered": report.covered, "problems": problems})
    else:
        for problem in report.problems[:20]:
            line(f"record {problem.seq}: {problem.code}: {problem.detail}", to=sys.stderr)
        word = "sound" if report.sound else f"BROKEN, first at record {report.problems[0].seq}"
        line(f"{report.records} records, {report.covered} of them under signed checkpoints: {word}")
    return Exit.FINE if report.sound else Exit.FAILED


def _as_of_issue(trust: Trust, envelope: bytes) -> Signed[Statement]:
    """A checkpoint, proven as of its own time: keys that signed it have been replaced since."""
    from policy.statements import AuditCheckpoint
    from pratique.envelopes import open_envelope

    statement = open_envelope(envelope, "checkpoint").statement
    if not isinstance(statement, AuditCheckpoint):
        return trust.verify_any(envelope, (AuditCheckpoint,), clock.now())
    return trust.verify_any(envelope, (AuditCheckpoint,), min(statement.issued, clock.now()))


def _trust(arguments: argparse.Namespace, registry: Control) -> Trust:
    from policy.trust import Trust
    from pratique.files import read_bounded

    if arguments.trust is not None:
        return Trust.stored(read_bounded(arguments.trust, _MAX), clock.now())
    raw = registry.trust()
    if raw is None:
        raise CommandError(f"registry {registry.remote.registry}: has no trust.json yet")
    return Trust.stored(raw, clock.now())


# ---- recompute ------------------------------------------------------------------------------------------------------


def _recompute(arguments: argparse.Namespace) -> int:
    from policy import codec
    from policy.explain import explain, explain_lines
    from pratique.control import control

    name, repository, target = _wanted(arguments)
    registry = control(name, arguments.account)
    trust = _trust(arguments, registry)
    repository, digest = _resolve(registry, repository, target)
    said = codec.decode_decision(registry.raw(f"/decisions/{digest}/{repository}"))
    found = _again(registry, trust, said)
    same = codec.encode_decision(found) == codec.encode_decision(said)
    if arguments.json:
        as_json({"same": same, "registry": explain(said), "here": explain(found)})
    else:
        line(f"{repository}@{digest}")
        line(f"  evidence {said.evidence}")
        line(f"  policy   {said.policy_name} version {said.policy_version}, {said.policy}")
        line(f"  decided  {said.taken:%Y-%m-%d %H:%M:%S} UTC: {said.state}; here: {found.state}")
        line("  the same, in every verdict" if same else "  NOT THE SAME. Here:")
        for text in () if same else explain_lines(found):
            line(f"  {text}")
    return Exit.FINE if same else Exit.DENIED


def _wanted(arguments: argparse.Namespace) -> tuple[str, str, str]:
    """Registry, repository ("" for any), and tag or digest."""
    from ocispec.reference import Reference, check_registry

    if "/" in arguments.registry:
        if arguments.digest is not None:
            raise UsageError("recompute: expected REGISTRY DIGEST, or IMAGE alone")
        reference = Reference.parse(arguments.registry)
        return reference.registry, reference.repository, reference.target
    if arguments.digest is None:
        raise UsageError("recompute: expected DIGEST behind REGISTRY")
    return check_registry(arguments.registry), "", arguments.digest


def _resolve(registry: Control, repository: str, target: str) -> tuple[str, Digest]:
    from ocispec import fields
    from ocispec.digest import Digest
    from ocispec.reference import Reference
    from pratique.control import text_of

    if repository and ":" in target:
        return repository, Digest.parse(target)
    if repository:
        reference = Reference(registry=registry.remote.registry, repository=repository, tag=target)
        return repository, Digest.parse(fields.text(registry.status(reference), "digest", what="status"))
    digest = Digest.parse(target)
    for row in registry.images():
        if text_of(row, "digest") == str(digest):
            return text_of(row, "repository"), digest
    raise CommandError(f"registry {registry.remote.registry}: no image {digest} that this account may know of")


def _again(registry: Control, trust: Trust, said: Decision) -> Decision:
    """The Decision from the evidence and the policy that `said` names.

    Raises:
        CommandError: what the registry sends is not what the Decision names.
        TrustError: a signature is not believed.
    """
    from ocispec.digest import Digest
    from policy import codec
    from policy.evaluate import evaluate
    from policy.load import load_verified
    from policy.statements import PolicyStatement

    raw = registry.raw(f"/evidence/{said.evidence}")
    if Digest.of(raw) != said.evidence:
        raise CommandError(f"evidence: got {Digest.of(raw)}, expected {said.evidence}")
    verify_at: datetime = said.taken
    signed = trust.verify(registry.raw(f"/policy/{said.policy}"), PolicyStatement, verify_at)
    if Digest.of(signed.statement.document) != said.policy:
        raise CommandError(f"policy: got {Digest.of(signed.statement.document)}, expected {said.policy}")
    evidence = codec.decode_evidence(raw, trust.verifier(verify_at))
    return evaluate(load_verified(signed.statement.document), evidence)
