"""Sign that a digest, layer, component or key may no longer start; hosts stop what runs of it.

pratique revoke --registry REG --reason 'first list' --key alice.key --key bob.key
    the first revocation list, which may be empty: hosts start nothing before there is one
pratique revoke --digest REG/base/debian:13 --reason 'backdoor in liblzma' --key alice.key --key bob.key
    an image by reference (its manifest, its config, and its layers with all that is built on them), or any one
    DIGEST of a manifest, config, chain, root index or statement
pratique revoke --registry REG --component 'pkg:deb/debian/xz-utils@5.6.*' --reason ... --key ... --key ...
pratique revoke --registry REG --layer sha256:... | --key-id sha256:... | --lift ENTRY ...
pratique revoke --registry REG --digest ... --reason ... --key alice.key --out list.next
pratique revoke --continue list.next --key bob.key --registry REG      the second officer signs, and hands it in
pratique revoke --registry REG --list                                  what is on the list
pratique revoke --registry REG --withdraw STATEMENT --reason ... --key alice.key
    an approval or waiver, named by its statement's digest, no longer holds

The list in force is fetched and checked (by --trust, or by the registry's own trust.json), entries are added, and
the number rises by one. trust.json says how many officers must sign.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pratique import arguments as shared
from pratique import clock
from pratique.exits import CommandError, Exit, UsageError
from pratique.output import as_json, line, table

if TYPE_CHECKING:
    from ocispec.digest import Digest
    from policy.statements import RevocationList
    from pratique.control import Control

_MAX: Final = 4 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what is revoked, why, and by whom."""
    parser.add_argument("--registry", metavar="REGISTRY", help="whose list (default: the registry of an IMAGE)")
    add = parser.add_argument_group("entries; each may be given more than once")
    add.add_argument("--digest", metavar="DIGEST|IMAGE", action="append", default=[], help="an image, or any digest")
    add.add_argument("--layer", metavar="DIFF_ID", action="append", default=[], help="a layer, by diff_id")
    add.add_argument("--component", metavar="GLOB", action="append", default=[], help="package URLs")
    add.add_argument("--key-id", metavar="KEY", action="append", default=[], help="a key, by its id")
    add.add_argument("--lift", metavar="ENTRY", action="append", default=[], help="take an entry off the list")
    parser.add_argument("--reason", metavar="TEXT", help="why; hosts show it")
    parser.add_argument("--trust", metavar="FILE", type=Path, help="trust.json to check the list in force by")
    shared.add_keys(parser, required=False)
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the list there, for more signatures")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--continue", metavar="FILE", type=Path, dest="unfinished", help="add signatures to a list")
    other.add_argument("--list", action="store_true", help="show the list in force")
    other.add_argument("--withdraw", metavar="STATEMENT", help="an approval or waiver that no longer holds")
    shared.add_account(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show, withdraw, go on with a list, or make the next one."""
    if arguments.list:
        return _show(arguments)
    if not arguments.key:
        raise UsageError("revoke: expected --key FILE")
    if arguments.unfinished is not None:
        return _continue(arguments)
    if not arguments.reason:
        raise UsageError("revoke: expected --reason TEXT")
    return _withdraw(arguments) if arguments.withdraw is not None else _revoke(arguments)


def _registry(arguments: argparse.Namespace) -> Control:
    from ocispec.reference import Reference
    from pratique.control import control

    named = {arguments.registry} if arguments.registry else set()
    named |= {Reference.parse(text).registry for text in arguments.digest if "/" in text}
    if len(named) != 1:
        raise UsageError(f"revoke: got {len(named)} registries, expected one, by --registry or by IMAGE")
    return control(named.pop(), arguments.account)


def _current(arguments: argparse.Namespace, registry: Control, now: datetime) -> RevocationList | None:
    """The list in force, proven; None before the first one."""
    from policy.statements import RevocationList
    from policy.trust import Trust
    from pratique.files import read_bounded

    found = registry.revocations()
    if found is None:
        return None
    raw = read_bounded(arguments.trust, _MAX) if arguments.trust is not None else registry.trust()
    if raw is None:
        raise CommandError(f"registry {registry.remote.registry}: has a revocation list, and no trust.json")
    return Trust.parse(raw, now).verify(found[0], RevocationList, now).statement


def _revoke(arguments: argparse.Namespace) -> int:
    from policy.seal import seal
    from policy.statements import RevocationList
    from pratique.files import write_new

    now, registry = clock.now(), _registry(arguments)
    current = _current(arguments, registry, now)
    empty = RevocationList(number=0, digests=(), layers=(), components=(), keys=(), reason="", issued=now)
    following = _following(arguments, registry, current or empty, now)
    if current is not None and _entries(following) == _entries(current):
        raise UsageError("revoke: the list in force says all of this already")
    for kind, entry in sorted(_entries(following) ^ _entries(current or empty)):
        word = "adds" if (kind, entry) in _entries(following) else "lifts"
        line(f"  {word} {kind} {entry}", to=sys.stderr)
    envelope = seal(following, *shared.read_keys(arguments))
    if arguments.out is not None:
        write_new(arguments.out, envelope)
        line(f"wrote {arguments.out}: revocation list number {following.number}")
        return Exit.FINE
    return _publish(registry, envelope, json=arguments.json)


def _following(
    arguments: argparse.Namespace, registry: Control, current: RevocationList, now: datetime
) -> RevocationList:
    from ocispec.digest import Digest
    from policy.globs import Glob

    lift = set(arguments.lift)
    on_list = {entry for _, entry in _entries(current)}
    shared.one_of(arguments.lift, sorted(on_list), "--lift")
    for glob in arguments.component:
        Glob.compile(glob)
    digests = {digest for text in arguments.digest for digest in _digests(text, registry)}
    layers = {Digest.parse(text) for text in arguments.layer}
    keys = {str(Digest.parse(text)) for text in arguments.key_id}
    return replace(
        current,
        number=current.number + 1,
        digests=tuple(sorted(d for d in {*current.digests, *digests} if str(d) not in lift)),
        layers=tuple(sorted(d for d in {*current.layers, *layers} if str(d) not in lift)),
        components=tuple(sorted({*current.components, *arguments.component} - lift)),
        keys=tuple(sorted({*current.keys, *keys} - lift)),
        reason=arguments.reason,
        issued=now,
    )


def _digests(text: str, registry: Control) -> list[Digest]:
    """A digest as it is; of an image its manifest, its config, and the chain ID of its layers.

    So its content stays revoked in another manifest or under another config, and so does what is built on it, even
    where its approval is withheld (docs/adr/0020).
    """
    from ocispec.blobs import load_image
    from ocispec.config import chain_ids
    from ocispec.digest import Digest
    from ocispec.manifest import Manifest
    from ocispec.reference import Reference

    if "/" not in text:
        return [Digest.parse(text)]
    reference = Reference.parse(text)
    target = reference.digest if reference.digest is not None else (reference.tag or "latest")
    document = registry.remote.manifest(reference.repository, target)
    if not isinstance(document, Manifest):
        return [document.digest]
    image = load_image(registry.remote.repository(reference.repository), document)
    return [document.digest, document.config.digest, *chain_ids(image.config.diff_ids)[-1:]]


def _entries(revocations: RevocationList) -> set[tuple[str, str]]:
    return {
        *(("digest", str(digest)) for digest in revocations.digests),
        *(("layer", str(layer)) for layer in revocations.layers),
        *(("component", glob) for glob in revocations.components),
        *(("key", key) for key in revocations.keys),
    }


def _publish(registry: Control, envelope: bytes, *, json: bool) -> int:
    from pratique.control import text_of
    from pratique.envelopes import open_envelope
    from pratique.statements import describe

    opened = open_envelope(envelope, "revocation list")
    answer = registry.post_statement(envelope)
    if json:
        as_json({**answer, "statement": str(opened.digest)})
        return Exit.FINE
    line(f"{registry.remote.registry} has taken: {describe(opened.statement)}")
    line(f"  images revoked at once: {text_of(answer, 'revoked') or '0'}")
    return Exit.FINE


def _continue(arguments: argparse.Namespace) -> int:
    from policy.seal import countersign
    from policy.statements import RevocationList
    from pratique.control import control
    from pratique.envelopes import open_envelope, signers
    from pratique.files import read_bounded, write_new

    raw = read_bounded(arguments.unfinished, _MAX)
    opened = open_envelope(raw, str(arguments.unfinished))
    if not isinstance(opened.statement, RevocationList):
        raise UsageError(f"{arguments.unfinished}: a {type(opened.statement).__name__}, expected a revocation list")
    _print(opened.statement, to_stderr=True)
    envelope = countersign(raw, *shared.read_keys(arguments))
    write_new(arguments.out or arguments.unfinished, envelope, replace=True)
    if arguments.registry is not None:
        return _publish(control(arguments.registry, arguments.account), envelope, json=arguments.json)
    count = len(signers(open_envelope(envelope, "revocation list")))
    line(f"{arguments.out or arguments.unfinished}: {count} signature{'s' if count != 1 else ''}")
    return Exit.FINE


def _withdraw(arguments: argparse.Namespace) -> int:
    from ocispec.digest import Digest
    from policy.seal import seal
    from policy.statements import Withdrawal
    from pratique.statements import hand_in

    digest = Digest.parse(arguments.withdraw)
    withdrawal = Withdrawal(statement=digest, reason=arguments.reason, issued=clock.now())
    return hand_in(_registry(arguments), seal(withdrawal, *shared.read_keys(arguments)), json=arguments.json)


def _show(arguments: argparse.Namespace) -> int:
    from policy.times import format_time

    registry = _registry(arguments)
    current = _current(arguments, registry, clock.now())
    if current is None:
        raise CommandError(f"registry {registry.remote.registry}: has no revocation list yet")
    if arguments.json:
        as_json(
            {
                "number": current.number,
                "issued": format_time(current.issued),
                "reason": current.reason,
                "entries": [{"kind": kind, "entry": entry} for kind, entry in sorted(_entries(current))],
            }
        )
    else:
        _print(current, to_stderr=False)
    return Exit.FINE


def _print(revocations: RevocationList, *, to_stderr: bool) -> None:
    from policy.times import format_time

    issued = format_time(revocations.issued)
    out = sys.stderr if to_stderr else sys.stdout
    line(f"revocation list number {revocations.number} of {issued}: {revocations.reason}", to=out)
    if to_stderr:
        for kind, entry in sorted(_entries(revocations)):
            line(f"  {kind} {entry}", to=out)
    else:
        table(("KIND", "ENTRY"), sorted(_entries(revocations)))
