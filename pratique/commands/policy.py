"""Lint, sign, show and publish policies.

pratique policy default > policy.yaml            the policy that is shipped, to begin with
pratique policy lint policy.yaml                 what is wrong, and what is allowed but rarely meant
pratique policy sign policy.yaml --key alice.key --out policy.signed
pratique policy sign policy.signed --key bob.key adds a signature to an envelope that is there
pratique policy publish registry.example:5000 policy.signed
pratique policy show policy.signed               or a REGISTRY, or a document; --document prints the YAML
pratique policy floor default 3 --registry registry.example:5000 --key alice.key --key bob.key
                                                 clearances under versions before 3 no longer count

Name and version come from the document. Each new version needs a higher number; hosts that were cleared under an
older one go on until a floor says otherwise. lint ends with 1 if the policy cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocispec.strictjson import JsonValue
from pratique import arguments as shared
from pratique import clock
from pratique.exits import CommandError, Exit, UsageError
from pratique.output import as_json, line

if TYPE_CHECKING:
    from policy.settings import Policy
    from policy.trust import Trust

_MAX: Final = 4 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `lint`, `sign`, `show`, `publish`, `default` and `floor`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="lint|sign|show|publish|default|floor")
    lint = verbs.add_parser("lint", help="what is wrong with a policy, and what is rarely meant")
    lint.add_argument("file", metavar="FILE", type=Path)
    lint.add_argument("--strict", action="store_true", help="warnings end with 1 as well")
    sign = verbs.add_parser("sign", help="sign a policy document, or add a signature to a signed one")
    sign.add_argument("file", metavar="FILE", type=Path)
    sign.add_argument("--out", metavar="FILE", type=Path, help="where the envelope is written (default: FILE.signed)")
    shared.add_keys(sign)
    show = verbs.add_parser("show", help="name, version, digest, and who signed")
    show.add_argument("what", metavar="FILE|REGISTRY")
    show.add_argument("--trust", metavar="FILE", type=Path, help="trust.json to check signatures by")
    show.add_argument("--document", action="store_true", help="print the policy document itself")
    shared.add_account(show)
    publish = verbs.add_parser("publish", help="put a signed policy in force")
    publish.add_argument("registry", metavar="REGISTRY")
    publish.add_argument("file", metavar="FILE", type=Path)
    shared.add_account(publish)
    verbs.add_parser("default", help="print the policy that is shipped")
    floor = verbs.add_parser("floor", help="end clearances under older versions")
    floor.add_argument("name", metavar="NAME")
    floor.add_argument("version", metavar="VERSION", type=int)
    floor.add_argument("--registry", metavar="REGISTRY", help="publish it there")
    floor.add_argument("--out", metavar="FILE", type=Path, help="write it there, e.g. for a second officer's signature")
    shared.add_keys(floor)
    shared.add_account(floor)
    for verb in (lint, sign, show, publish, floor):
        shared.add_json(verb)


def run(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    match arguments.verb:
        case "lint":
            return _lint(arguments)
        case "sign":
            return _sign(arguments)
        case "show":
            return _show(arguments)
        case "publish":
            return _publish(arguments)
        case "floor":
            return _floor(arguments)
        case _:
            from policy.load import default_document

            print(default_document().decode(), end="")
            return Exit.FINE


def _lint(arguments: argparse.Namespace) -> int:
    from policy.lint import Weight, lint
    from pratique.files import read_bounded

    problems = lint(read_bounded(arguments.file, _MAX))
    errors = [problem for problem in problems if problem.weight is Weight.ERROR]
    if arguments.json:
        as_json([{"weight": str(problem.weight), "text": problem.text} for problem in problems])
    else:
        for problem in problems:
            line(str(problem))
        line(f"{arguments.file}: {len(errors)} errors, {len(problems) - len(errors)} warnings", to=sys.stderr)
    return Exit.FAILED if errors or (arguments.strict and problems) else Exit.FINE


def _sign(arguments: argparse.Namespace) -> int:
    from policy.seal import countersign, seal
    from policy.statements import PolicyStatement
    from pratique.envelopes import is_envelope, open_envelope, signers
    from pratique.files import read_bounded, write_new

    raw = read_bounded(arguments.file, _MAX)
    if is_envelope(raw):
        opened = open_envelope(raw, str(arguments.file)).statement
        if not isinstance(opened, PolicyStatement):
            raise UsageError(f"{arguments.file}: a {type(opened).__name__}, expected a policy")
        _load(opened.document, arguments.file)
        envelope, out = countersign(raw, *shared.read_keys(arguments)), arguments.out or arguments.file
    else:
        policy = _load(raw, arguments.file)
        statement = PolicyStatement(name=policy.name, version=policy.version, document=raw, issued=clock.now())
        envelope = seal(statement, *shared.read_keys(arguments))
        out = arguments.out or arguments.file.with_name(arguments.file.name + ".signed")
    write_new(out, envelope, replace=out == arguments.file)
    signed = open_envelope(envelope, str(out))
    assert isinstance(signed.statement, PolicyStatement)  # noqa: S101  # was checked, or made, above
    name, version, count = signed.statement.name, signed.statement.version, len(signers(signed))
    if arguments.json:
        keys: list[JsonValue] = [key for key, _ in signers(signed)]
        as_json({"file": str(out), "policy": name, "version": version, "digest": str(signed.digest), "keys": keys})
    else:
        line(f"{out}: policy {name} version {version}, {count} signature{'s' if count != 1 else ''}")
    return Exit.FINE


def _show(arguments: argparse.Namespace) -> int:
    from ocispec.digest import Digest
    from policy.statements import PolicyStatement
    from pratique.envelopes import is_envelope, open_envelope, signers, signers_json

    raw, trust = _policy_and_trust(arguments)
    opened = open_envelope(raw, arguments.what) if is_envelope(raw) else None
    if opened is not None and not isinstance(opened.statement, PolicyStatement):
        raise UsageError(f"{arguments.what}: a {type(opened.statement).__name__}, expected a policy")
    document = raw if opened is None else getattr(opened.statement, "document", b"")
    if arguments.document:
        for text in document.decode("utf-8", "backslashreplace").splitlines():
            line(text)
        return Exit.FINE
    policy = _load(document, arguments.what)
    if arguments.json:
        as_json(
            {
                "name": policy.name,
                "version": policy.version,
                "document": str(Digest.of(document)),
                "levels": [level.name for level in policy.levels],
                "rules": [rule.name for rule in policy.rules],
                "signatures": signers_json(opened, trust) if opened is not None else [],
            }
        )
        return Exit.FINE
    line(f"policy {policy.name} version {policy.version}: {policy.description}")
    line(f"document  {Digest.of(document)}")
    line(f"levels    {', '.join(level.name for level in policy.levels)}")
    line(f"rules     {', '.join(rule.name for rule in policy.rules)}")
    for key, known in signers(opened, trust) if opened is not None else []:
        line(f"signed    {known}  {key}")
    if opened is None:
        line("signed    by nobody: a document")
    return Exit.FINE


def _load(document: bytes, file: object) -> Policy:
    """The policy in a document that was read from `file`.

    Raises:
        CommandError: it is none; the error names the file.
    """
    from policy.errors import PolicyError
    from policy.load import load

    try:
        return load(document)
    except PolicyError as error:
        raise CommandError(f"{file}: {error}") from error


def _policy_and_trust(arguments: argparse.Namespace) -> tuple[bytes, Trust | None]:
    from policy.trust import Trust
    from pratique.control import control
    from pratique.files import read_bounded

    now, path = clock.now(), Path(arguments.what)
    trust = Trust.stored(read_bounded(arguments.trust, _MAX), now) if arguments.trust is not None else None
    if path.is_file():
        return read_bounded(path, _MAX), trust
    registry = control(arguments.what, arguments.account)
    raw = registry.policy()
    if raw is None:
        raise CommandError(f"registry {arguments.what}: has no policy yet")
    if trust is None and (said := registry.trust()) is not None:
        trust = Trust.stored(said, now)
    return raw, trust


def _publish(arguments: argparse.Namespace) -> int:
    from policy.statements import PolicyStatement
    from pratique.control import control
    from pratique.envelopes import open_envelope
    from pratique.files import read_bounded
    from pratique.statements import hand_in

    envelope = read_bounded(arguments.file, _MAX)
    opened = open_envelope(envelope, str(arguments.file)).statement
    if isinstance(opened, PolicyStatement):
        _load(opened.document, arguments.file)
    return hand_in(control(arguments.registry, arguments.account), envelope, json=arguments.json)


def _floor(arguments: argparse.Namespace) -> int:
    from policy.seal import seal
    from policy.statements import PolicyFloor
    from pratique.control import control
    from pratique.files import write_new
    from pratique.statements import hand_in

    if (arguments.registry is None) == (arguments.out is None):
        raise UsageError("floor: expected --registry to publish it, or --out to write it")
    floor = PolicyFloor(name=arguments.name, version=arguments.version, issued=clock.now())
    envelope = seal(floor, *shared.read_keys(arguments))
    if arguments.out is not None:
        write_new(arguments.out, envelope)
        line(f"wrote {arguments.out}")
        return Exit.FINE
    return hand_in(control(arguments.registry, arguments.account), envelope, json=arguments.json)
