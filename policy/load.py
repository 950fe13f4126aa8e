"""Reading a policy document: strict, bounded, checked by its JSON Schema, compiled to closures.

The schema is for people: it says all that is wrong at once. What a policy may hold is decided by the shapes of
`vocabulary.py`, which refuse everything that the schema refuses; so a host, which loads a policy whose signature it
verified, does without the schema and its 60 milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from policy.document import read_document
from policy.errors import PolicyError
from policy.rules.interface import Draft
from policy.settings import Accepts, Level, Policy, StartTerms
from policy.vocabulary import BUILT_IN, DOCUMENT, NEVER_WAIVED, Document, LevelDraft

MAX_PROBLEMS = 20
"""Problems that an error lists."""


def load(document: bytes) -> Policy:
    """Return the policy in `document` (YAML or JSON); its digest is of exactly these bytes.

    Raises:
        PolicyError: not readable, an unknown key, or a value that is not what it should be; names all of them.
    """
    from policy.schema import schema_problems  # noqa: PLC0415  # jsonschema costs 60 ms, and hosts do without it

    value = read_document(document)
    problems = list(schema_problems(value))
    if not problems:
        parsed = DOCUMENT.parse(value, "")
        problems = [*contradictions(parsed), *rule_problems(parsed)]
    if problems:
        shown = "\n".join(problems[:MAX_PROBLEMS])
        more = f"\nand {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise PolicyError(f"{shown}{more}")
    return _compile(parsed, document)


def load_verified(document: bytes) -> Policy:
    """`load` without the JSON Schema, for a document whose signature was verified: what a host does at a start.

    As strict as `load` in everything but the contents of lists that no start looks at (licence ids).

    Raises:
        PolicyError: as `load`, but for the first problem only.
    """
    parsed = parse(read_document(document))
    for problem in contradictions(parsed):
        raise PolicyError(problem)
    return _compile(parsed, document)


def default_document() -> bytes:
    """The policy that is shipped: `policies/default.yaml`."""
    return resources.files("policies").joinpath("default.yaml").read_bytes()


def parse(value: JsonValue) -> Document:
    """The document as values, each setting checked by itself.

    Raises:
        PolicyError: the first setting that is not of its shape.
    """
    parsed: Document = DOCUMENT.parse(value, "")
    return parsed


def contradictions(document: Document) -> Iterator[str]:
    """What is wrong between settings, each of which is right by itself."""
    names = [level.name for level in document.levels]
    yield from _repeated(names, "levels", "level")
    for index, level in enumerate(document.levels):
        yield from _level(level, names, index)
    known = {*BUILT_IN, "policy"}
    for index, rule in enumerate(document.rules):
        where = f"policy: rules[{index}]"
        if rule.name in known:
            yield f"{where}.name: got {rule.name!r} again, expected a name that no other rule has"
        known.add(rule.name)
        yield from _levels_known(rule.levels, names, f"{where}.levels")
    for index, waiver in enumerate(document.waivers):
        where = f"policy: waivers[{index}]"
        for name in waiver.rules:
            if name in NEVER_WAIVED:
                yield f"{where}.rules: got {name!r}, which nothing may waive"
            elif name not in known:
                rules = ", ".join(sorted(known - set(NEVER_WAIVED)))
                yield f"{where}.rules: got {name!r}, expected one of the policy's rules: {rules}"
        yield from _levels_known(waiver.levels, names, f"{where}.levels")
    for index, unknown in enumerate(document.scan.unknowns):
        yield from _levels_known(unknown.levels, names, f"policy: scan.unknowns[{index}].levels")
    yield from _levels_known(document.start.levels, names, "policy: start.levels")
    if document.clearance.renew_after >= document.clearance.lifetime:
        yield "policy: clearance.renew_after: expected less than the lifetime"


def rule_problems(document: Document) -> Iterator[str]:
    """What the rules themselves say is wrong with their settings."""
    for index, rule in enumerate(document.rules):
        yield from (f"policy: rules[{index}].{problem}" for problem in rule.problems())


def _level(level: LevelDraft, names: list[str], index: int) -> Iterator[str]:
    where = f"policy: levels[{index}]"
    for name in level.stands_on:
        if name not in names[: index + 1]:
            yield f"{where}.stands_on: got {name!r}, expected this level or one listed before it"
    if level.needs_parent and not level.stands_on:
        yield f"{where}.stands_on: empty, but the level needs a parent"
    approval = level.approval
    if approval.accepts is not Accepts.LAYERS and not approval.image:
        yield f"{where}.approval.image: empty, expected whose approval of an image counts"
    if approval.accepts is not Accepts.IMAGE and not approval.layers:
        yield f"{where}.approval.layers: empty, expected whose approval of a layer counts"


def _levels_known(levels: Iterable[str], names: list[str], where: str) -> Iterator[str]:
    for level in levels:
        if level not in names:
            yield f"{where}: got {level!r}, expected one of the levels: {', '.join(names)}"


def _repeated(names: list[str], where: str, what: str) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"policy: {where}: got the {what} {name!r} twice"


def _compile(document: Document, raw: bytes) -> Policy:
    rules: tuple[Draft[Any], ...] = document.rules
    return Policy(
        name=document.name,
        version=document.version,
        digest=Digest.of(raw),
        description=document.description,
        levels=tuple(
            Level(
                name=level.name,
                rank=rank,
                stands_on=level.stands_on,
                needs_parent=level.needs_parent,
                approval=level.approval,
                config=level.config,
            )
            for rank, level in enumerate(document.levels)
        ),
        rules=tuple(rule.compiled() for rule in rules),
        waivers=document.waivers,
        scan=document.scan,
        clearance=document.clearance,
        revocation=document.revocation,
        running=document.running,
        start=_with_defaults(document.start),
        artifacts=document.artifacts,
    )


def _with_defaults(start: StartTerms) -> StartTerms:
    """Where no default is said, what may be asked for at most is what is given."""
    return replace(
        start,
        memory_default=start.memory_default if start.memory_default is not None else start.memory,
        pids_default=start.pids_default if start.pids_default is not None else start.pids,
    )
