"""Handing signed statements to a registry, and saying what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pratique.envelopes import open_envelope, signers
from pratique.exits import Exit
from pratique.output import as_json, line

if TYPE_CHECKING:
    from policy.statements import Statement
    from pratique.control import Control


def hand_in(registry: Control, envelope: bytes, *, json: bool, quiet: bool = False) -> Exit:
    """Give `envelope` to the registry, and print that it was taken, unless `quiet`.

    Raises:
        RemoteError: it was refused.
        TrustError: not an envelope of a statement that we know.
    """
    opened = open_envelope(envelope, "statement")
    answer = registry.post_statement(envelope)
    if json:
        as_json({**answer, "statement": str(opened.digest), "type": type(opened.statement).__name__})
        return Exit.FINE
    if quiet:
        return Exit.FINE
    keys = len(signers(opened))
    line(f"{registry.remote.registry} has taken: {describe(opened.statement)}")
    line(f"  statement {opened.digest}, {keys} signature{'s' if keys != 1 else ''}")
    return Exit.FINE


def describe(statement: Statement) -> str:
    """One line for people: what a statement says."""
    from policy import statements as kinds
    from policy.times import format_time

    match statement:
        case kinds.ImageApproval():
            return (
                f"image {statement.manifest} is fit for level {statement.level} until {format_time(statement.expires)}"
            )
        case kinds.LayerApproval():
            on = f" on top of chain {statement.chain_id}" if statement.chain_id is not None else ""
            until = format_time(statement.expires)
            return f"layer {statement.diff_id} is fit for level {statement.level}{on} until {until}"
        case kinds.Waiver():
            what = statement.advisory or statement.component or "all"
            until = format_time(statement.expires)
            return f"rule {statement.rule} is waived for {what} in {statement.scope} until {until}"
        case kinds.Withdrawal():
            return f"statement {statement.statement} no longer holds: {statement.reason}"
        case kinds.RevocationList():
            count = sum(map(len, (statement.digests, statement.layers, statement.components, statement.keys)))
            return f"revocation list number {statement.number} of {count} entries: {statement.reason}"
        case kinds.PolicyStatement():
            return f"policy {statement.name} version {statement.version}"
        case kinds.PolicyFloor():
            return f"clearances under policy {statement.name} before version {statement.version} no longer count"
        case _:
            return type(statement).__name__
