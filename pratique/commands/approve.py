"""Sign that an image, or single layers of it, are fit for a level.

pratique approve registry.example:5000/base/debian:13 --level base --key alice.key --until 90d
pratique approve --layer registry.example:5000/shop/web:1 --level application --key team.key
    the layers above its approved parent; or --top 2, or --diff-id sha256:…
pratique approve oci:folder:tag --level base --key alice.key --out base.approval

The image is read here, where the key is: every layer strictly, merged, and its root index built; what is signed is
what was read. It is shown before it is signed: read it. The approval goes to the image's registry (or --registry),
which judges the image again; what is still missing then is said. Each person signs with a run of their own.
A layer that writes a package database is approved on top of exactly the layers below it, by chain ID.
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
from pratique.exits import Exit, UsageError
from pratique.output import as_json, line, size

if TYPE_CHECKING:
    from ocispec.reference import Reference
    from policy.model import LayerFacts
    from policy.settings import Level
    from policy.statements import Statement
    from pratique.control import Control
    from pratique.reading import ReadImage

_WAIT: Final = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the image, the level, the end and the key."""
    parser.add_argument("image", metavar="IMAGE", help="a SOURCE; usually registry/repository:tag or @digest")
    parser.add_argument("--level", metavar="LEVEL", required=True, help="a level of the policy, e.g. base")
    parser.add_argument("--until", metavar="TIME", default="90d", help="90d, 12h, or a date (default: 90d)")
    parser.add_argument("--platform", metavar="OS/ARCH", help="of an index, the child for this platform")
    layers = parser.add_argument_group("single layers")
    layers.add_argument("--layer", action="store_true", help="approve layers of the image, not the image")
    layers.add_argument("--top", metavar="N", type=int, help="the upper N layers")
    layers.add_argument("--diff-id", metavar="DIGEST", action="append", default=[], help="this layer")
    layers.add_argument("--chain", action="store_true", help="on top of exactly the layers below, in any case")
    shared.add_keys(parser)
    parser.add_argument("--registry", metavar="REGISTRY", help="hand it in there (default: the image's registry)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the statement there, and hand nothing in")
    parser.add_argument("--yes", action="store_true", help="do not ask at a terminal before signing")
    shared.add_account(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read, show, sign, hand in, and say what came of it."""
    from pratique.control import control
    from pratique.reading import find_image, read_image, reference_of

    now = clock.now()
    end = shared.until(arguments.until, now)
    registry_name, repository = reference_of(arguments.image)
    target = arguments.registry or registry_name
    if arguments.out is None and not target:
        raise UsageError("approve: expected --registry or --out for an image that is not in a registry")
    registry = control(target, arguments.account) if arguments.out is None else None
    level = _level(registry, arguments.level)
    image = find_image(arguments.image, account=arguments.account, platform=arguments.platform)
    read = read_image(image, registry=registry_name, repository=repository, now=now)
    where = _reference(registry_name, repository, read) if registry is not None and registry_name == target else None
    statements = _statements(arguments, read, level, where, registry, now, end)
    _show(read, statements, arguments)
    if sys.stdin.isatty() and not arguments.yes and input("sign this? [y/N] ").strip().lower() not in {"y", "yes"}:
        line("nothing was signed", to=sys.stderr)
        return Exit.FAILED
    return _sign(arguments, statements, registry, where)


def _level(registry: Control | None, name: str) -> Level | None:
    """The level in the registry's policy, as it says: for a mistyped name, and for the chain that it may want."""
    from policy.load import load_verified
    from policy.statements import PolicyStatement
    from pratique.envelopes import open_envelope

    envelope = registry.policy() if registry is not None else None
    if envelope is None:
        return None
    statement = open_envelope(envelope, "policy").statement
    if not isinstance(statement, PolicyStatement):
        return None
    levels = {level.name: level for level in load_verified(statement.document).levels}
    shared.one_of([name], tuple(levels), "level")
    return levels[name]


def _reference(registry: str, repository: str, read: ReadImage) -> Reference:
    from ocispec.reference import Reference

    return Reference(registry=registry, repository=repository, digest=read.facts.manifest)


def _statements(
    arguments: argparse.Namespace,
    read: ReadImage,
    level: Level | None,
    where: Reference | None,
    registry: Control | None,
    now: datetime,
    end: datetime,
) -> list[Statement]:
    from policy.approve import approve_image, approve_layer
    from policy.settings import Chain

    if not (arguments.layer or arguments.top or arguments.diff_id):
        return [approve_image(read.facts, arguments.level, issued=now, lifetime=end - now)]
    always = arguments.chain or (level is not None and level.approval.chain is Chain.ALWAYS)
    found: list[Statement] = []
    for layer in _layers(arguments, read, where, registry):
        approval = approve_layer(layer, arguments.level, issued=now, lifetime=end - now)
        found.append(replace(approval, chain_id=layer.chain_id) if always else approval)
    return found


def _layers(
    arguments: argparse.Namespace, read: ReadImage, where: Reference | None, registry: Control | None
) -> list[LayerFacts]:
    layers = list(read.facts.layers)
    if arguments.diff_id:
        known = {str(layer.diff_id): layer for layer in layers}
        shared.one_of(arguments.diff_id, tuple(known), "diff_id")
        return [known[diff_id] for diff_id in arguments.diff_id]
    if arguments.top is not None:
        if not 1 <= arguments.top <= len(layers):
            raise UsageError(f"--top: got {arguments.top}, expected 1 to {len(layers)}, its number of layers")
        return layers[-arguments.top :]
    own_from = _own_from(read, where, registry) if where is not None and registry is not None else None
    if own_from is None:
        raise UsageError("--layer: the image's approved parent is not known; expected --top N or --diff-id DIGEST")
    if own_from == len(layers):
        raise UsageError("--layer: the image has no layer above its approved parent")
    return layers[own_from:]


def _own_from(read: ReadImage, where: Reference, registry: Control) -> int | None:
    """How many of its layers are those of the parent that the registry names; None if that cannot be told."""
    from ocispec.blobs import load_image
    from ocispec.digest import Digest
    from ocispec.manifest import Index
    from pratique import standing
    from pratique.control import text_of

    status = standing.wait(registry, where, seconds=_WAIT)
    named = text_of(status, "parent")
    for row in registry.images() if named else ():
        if text_of(row, "digest") != named:
            continue
        blobs = registry.remote.repository(text_of(row, "repository"))
        manifest = registry.remote.manifest(blobs.name, Digest.parse(named))
        if isinstance(manifest, Index):
            continue
        below = load_image(blobs, manifest).config.diff_ids
        if below == read.image.config.diff_ids[: len(below)]:
            return len(below)
    return None


def _show(read: ReadImage, statements: list[Statement], arguments: argparse.Namespace) -> None:
    """What is approved, on stderr: standard output has the outcome."""
    from policy.statements import LayerApproval
    from pratique.statements import describe

    facts, inventory = read.facts, read.assembly.inventory
    config = facts.config_facts
    rows = [
        ("image", f"{arguments.image} ({facts.manifest})"),
        ("platform", facts.platform),
        ("config", str(facts.config)),
        ("entrypoint", " ".join(config.entrypoint)),
        ("cmd", " ".join(config.cmd)),
        ("user", config.user or "(none said: root)"),
        ("working dir", config.working_dir),
        ("volumes", ", ".join(config.volumes)),
        ("stop signal", config.stop_signal),
        *(("env", text) for text in config.env),
        ("root index", f"{facts.root_index} (built here, {size(len(read.index))})"),
        ("contents", f"{len(inventory.components)} components, {len(inventory.unknowns)} things that cannot be told"),
    ]
    for label, text in rows:
        if text:
            line(f"  {label:<12} {text}", to=sys.stderr)
    chosen = {statement.diff_id for statement in statements if isinstance(statement, LayerApproval)}
    for position, layer in enumerate(facts.layers):
        marks = ["writes a package database"] if layer.writes_package_database else []
        marks += ["APPROVED BY THIS"] if layer.diff_id in chosen else []
        note = f"  ({', '.join(marks)})" if marks else ""
        line(f"  layer {position:<6} {layer.diff_id}  {size(layer.size)}{note}", to=sys.stderr)
    for statement in statements:
        line(f"to be signed: {describe(statement)}", to=sys.stderr)


def _sign(
    arguments: argparse.Namespace, statements: list[Statement], registry: Control | None, where: Reference | None
) -> int:
    from policy.seal import seal
    from pratique import standing
    from pratique.files import write_new
    from pratique.statements import hand_in

    keys = shared.read_keys(arguments)
    envelopes = [seal(statement, *keys) for statement in statements]
    if registry is None:
        for position, envelope in enumerate(envelopes):
            path = arguments.out if position == 0 else arguments.out.with_name(f"{arguments.out.name}.{position + 1}")
            write_new(path, envelope)
            line(f"wrote {path}")
        return Exit.FINE
    before = registry.status(where) if where is not None else {}
    for envelope in envelopes:
        hand_in(registry, envelope, json=False, quiet=arguments.json)
    if where is None:
        return Exit.FINE
    mark = (before.get("judged"), before.get("decision"))
    after = standing.wait(
        registry, where, seconds=_WAIT, until=lambda status: (status.get("judged"), status.get("decision")) != mark
    )
    if arguments.json:
        as_json(dict(after))
    else:
        standing.show(after, str(where))
    return Exit.FINE
