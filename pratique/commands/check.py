"""The decision on an image, taken here, before anybody pushes it.

pratique check --registry registry.example --repository shop/web oci:build:web
    under the policy and with the approvals of a registry; --repository says where it would be pushed
pratique check --policy policy.yaml --trust trust.json --statement web.approval --repository shop/web oci:build:web
    the same without a registry

The image is read and scanned as the registry would do it. Advisory data come from --advisories (or
$PRATIQUE_ADVISORIES); without them what only they can tell is unknown, which counts as denied. Exit code 0 if it
would be cleared, 3 if not.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pratique import arguments as shared
from pratique import clock, sources
from pratique.commands.scan import add_advisories, judge
from pratique.exits import Exit, UsageError
from pratique.output import as_json, line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from ocispec.image import Image
    from policy.model import Decision, ImageFacts
    from policy.settings import Policy
    from policy.trust import Trust
    from pratique.reading import ReadImage


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the source, and where policy, trust and statements come from."""
    sources.add_source(parser)
    parser.add_argument("--registry", metavar="REGISTRY", help="take policy, trust and statements from there")
    parser.add_argument("--repository", metavar="NAME", help="where it would be pushed (default: SOURCE's own)")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="a policy document instead of the registry's")
    parser.add_argument("--trust", metavar="FILE", type=Path, help="trust.json instead of the registry's")
    parser.add_argument("--statement", metavar="FILE", type=Path, action="append", default=[], help="an envelope more")
    add_advisories(parser)
    shared.add_json(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What the image is judged by; a `policy.evidence.StatementSource`."""

    policy: Policy
    trust: Trust
    statements: tuple[bytes, ...]
    list: bytes | None

    def envelopes(self, image: ImageFacts) -> Iterable[bytes]:
        """Whatever was found: what does not concern the image does no harm."""
        return self.statements

    def revocation_list(self) -> bytes | None:
        """The registry's newest."""
        return self.list


def run(arguments: argparse.Namespace) -> int:
    """Read, scan, gather and evaluate."""
    from policy.explain import explain, explain_lines

    now = clock.now()
    registry, repository = _place(arguments)
    read = sources.read_source(arguments, now, registry=registry or "localhost", repository=repository)
    decision = _decide(arguments, read, _terms(arguments, registry, read.image, now), now)
    if arguments.json:
        as_json(explain(decision))
    else:
        for text in explain_lines(decision):
            line(text)
    return Exit.FINE if decision.allowed else Exit.DENIED


def _decide(arguments: argparse.Namespace, read: ReadImage, terms: _Terms, now: datetime) -> Decision:
    from policy.evaluate import evaluate
    from policy.evidence import Scan, gather

    report = judge(read, arguments.advisories, now)
    made = read.assembly
    scan = Scan(report=report, changes=made.changes, changes_truncated=made.changes_truncated, errors=read.errors)
    return evaluate(terms.policy, gather(read.facts, statements=terms, trust=terms.trust, scan=scan, now=now))


def _place(arguments: argparse.Namespace) -> tuple[str, str]:
    """Registry (may be empty) and repository in which the image is judged."""
    from ocispec.reference import check_repository
    from pratique.reading import reference_of

    registry, repository = reference_of(arguments.source)
    chosen = arguments.repository or repository
    if not chosen:
        raise UsageError("--repository: missing; it says where the image would be pushed")
    return arguments.registry or registry, check_repository(chosen)


def _terms(arguments: argparse.Namespace, registry: str, image: Image, now: datetime) -> _Terms:
    from policy.load import load
    from policy.trust import Trust
    from pratique.control import control

    client = control(registry, arguments.account) if registry else None
    trust = arguments.trust.read_bytes() if arguments.trust is not None else client.trust() if client else None
    if trust is None:
        raise UsageError("check needs a --registry with a trust.json, or --trust and --policy")
    trusted = Trust.parse(trust, now)
    if arguments.policy is not None:
        policy = load(arguments.policy.read_bytes())
    else:
        policy = _published(client.policy() if client is not None else None, trusted, now)
    listed = client.revocations() if client is not None else None
    found = client.concerning(image.config) if client is not None else ()
    return _Terms(
        policy=policy,
        trust=trusted,
        statements=(*found, *(path.read_bytes() for path in arguments.statement)),
        list=listed[0] if listed is not None else None,
    )


def _published(envelope: bytes | None, trust: Trust, now: datetime) -> Policy:
    from policy.load import load
    from policy.statements import PolicyStatement

    if envelope is None:
        raise UsageError("check needs --policy: there is no registry, or it has no policy yet")
    return load(trust.verify(envelope, PolicyStatement, now).statement.document)
