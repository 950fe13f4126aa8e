"""The reference part of docs/policy.md, made from the vocabulary: every section, setting, rule and reason.

`python -m policy.reference docs/policy.md` writes it between the page's two marks; a test keeps it there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from policy.errors import PolicyError
from policy.rules.config import DANGEROUS_VARIABLES
from policy.rules.scan_state import UNKNOWN_CODES
from policy.rules.table import COMMON, kinds
from policy.shape import ListOf, Member, Record
from policy.vocabulary import BUILT_IN, DOCUMENT

BEGIN: Final = "<!-- reference: made by `python -m policy.reference docs/policy.md`, not by hand -->"
END: Final = "<!-- end of reference -->"


_SIGNED: Final = {
    "expired": "its end has come",
    "not-yet-valid": "it was issued in the future",
    "withdrawn": "an officer, or who signed it, took it back",
    "revoked": "a revocation list names it",
    "revoked-key": "the key that signed it is revoked",
    "wrong-role": "nobody signed it whose role counts here",
    "wrong-level": "the key is not for this level",
    "unsigned": "nobody signed it",
}

REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "Reasons of `revocation`": {
        "revoked": "a list names its manifest, config, root index, a layer, a component, or what it stands on",
        "revocation-unreadable": "an entry of the list is no glob, so nobody can say what it names",
        "no-revocation-list": "there is no list",
        "revocation-list-expired": "the list is past its end, and on a host past the grace",
        "number-went-back": "the list is older than one that this host has seen",
    },
    "Reasons of `hierarchy`": {
        "no-approved-parent": "no approved image's layers are the first of its own, and its level needs a parent",
        "parent-not-approved": "it begins with an image whose approval does not hold",
        "level-order": "what it stands on, or the order of its layers, is of a level that may not be there",
        "quorum-not-met": "some owners signed, but too few",
        "image-not-approved": "nobody approved the image",
        "layer-not-approved": "nobody approved the layer",
        "no-layers": "it has no layers",
        "no-levels": "the policy has no levels",
        "too-many-approvals": "more approvals were offered than are looked at",
        "level-not-reached": "on a host: its approvals do not bring it to the clearance's level",
    },
    "Why an approval does not count": {
        **{f"approval-{code}": when for code, when in _SIGNED.items()},
        "approval-too-old": "it is older than the level's `max_age`",
        "approval-wrong-team": "the team may not approve for this level and repository",
        "approval-needs-chain": "it is of a single layer, and must name the layers below it (L8)",
        "approval-other-chain": "it names other layers below (L8)",
        "approval-other-layers": "it names this config with other layers",
        "approval-other-config": "it says other config fields than this config has",
        "approval-other-platform": "it is for another platform",
        "approval-index-version": "its root index was made by another reader or format",
        "approval-root-index": "it names another root index",
    },
    "Reasons of `config`": {
        "config-not-approved": "a field differs from the parent, and neither approval nor level allows it (S11)",
    },
    "Reasons of `scan`, `unknowns` and `freshness`": {
        "scan-failed": "a part of the scan did not end",
        **dict.fromkeys(UNKNOWN_CODES, "what `scan.unknowns` is about; docs/scanner.md tells each"),
        "data-missing": "the scan used no such records",
        "data-stale": "they were imported too long ago",
        "data-undated": "they have no date that can be read",
        "data-from-future": "they were imported after now",
    },
    "Reasons that any rule may have": {
        "passed": "the rule has nothing against the image",
        "approved": "of `hierarchy`: where the image stands",
        "rule-failed": "the rule could not be decided; nothing waives that",
        "empty-policy": "there is no rule at the image's level",
    },
    "Why a waiver does not count (notes of `waivers`; on a host, refusals)": {
        **{f"waiver-{code}": when for code, when in _SIGNED.items()},
        "waiver-too-long": "it lasts longer than the policy lets it",
        "waiver-too-wide": "it names neither rule nor advisory nor component",
        "waiver-not-possible": "the policy lets nobody waive this",
        "waiver-quorum-not-met": "too few signed",
        "waiver-unreadable": "one of its globs is none",
        "waiver-out-of-scope": "on a host: it is for other repositories",
    },
    "Reasons of a host, at a start": {
        "clock-set-back": "the clock is behind a signed time that was seen",
        "other-digest": "the clearance is for another manifest",
        "other-root-index": "the clearance is for another root index",
        "other-policy": "the clearance is under another policy",
        "unknown-policy": "trust.json does not name its policy",
        "policy-below-floor": "its policy is older than the host's floor",
        "issued-in-future": "the clearance was issued in the future",
        "clearance-expired": "the clearance is past its end",
        "clearance-too-old": "the clearance is older than `start.max_clearance_age`",
        "state-not-startable": "the clearance says that it is not cleared",
        "level-not-startable": "images of its level are not started",
        "other-platform": "it is for another platform than the host's",
        "platform-not-allowed": "its platform is not started",
        "user-mismatch": "the clearance's user is not the config's number",
        "memory-unlimited": "no limit was asked for, and there is a cap",
        "memory-over-cap": "more was asked for than the cap",
        "pids-unlimited": "as for memory",
        "pids-over-cap": "as for memory",
        "cpus-unlimited": "as for memory",
        "cpus-over-cap": "as for memory",
        "network-not-allowed": "this network may not be asked for",
        "capability-not-allowed": "this capability may not be asked for",
        "mount-not-allowed": "this host path may not be mounted",
        "writable-mount-not-allowed": "it may not be mounted writable",
        "executable-mount-not-allowed": "nothing in it may be run",
        "writable-not-allowed": "a writable overlay may not be asked for",
        "user-override": "another user may not be asked for",
        "command-override": "another command may not be asked for",
    },
}
"""The reasons of the built-in rules, of statements, and of starts; each other rule names its own."""


def reference() -> str:
    """The whole reference as Markdown."""
    lines = ["## Every setting", "", *_section(DOCUMENT, "", "The document")]
    lines += ["## The built-in rules", "", "| rule | holds that |", "| --- | --- |"]
    lines += [f"| `{name}` | {about} |" for name, about in BUILT_IN.items()]
    for title, reasons in REASONS.items():
        lines += ["", f"### {title}", "", "| reason | given when |", "| --- | --- |"]
        lines += [f"| `{reason}` | {when} |" for reason, when in reasons.items()]
    lines += ["", "## Every rule", "", "Settings that all rules have:", "", *_table(COMMON), ""]
    for kind in kinds().values():
        lines += [f"### `{kind.name}`", "", kind.about, ""]
        if kind.reasons:
            lines += ["| reason | given when |", "| --- | --- |"]
            lines += [f"| `{reason}` | {when} |" for reason, when in kind.reasons.items()]
            lines.append("")
        lines += [*_table(kind.members), ""]
        for name, member in kind.members.items():
            lines += _nested(member, f"{kind.name}: {name}")
    return "\n".join(lines).rstrip() + "\n"


def replace_reference(page: str) -> str:
    """`page` with the reference between its two marks.

    Raises:
        PolicyError: it does not have both marks once, in order.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise PolicyError("page: expected the two marks of the reference")
    return f"{head}{BEGIN}\n\n{reference()}\n{END}{tail}"


def _section(record: Record[Any], path: str, title: str) -> Iterator[str]:
    yield from (f"### {title}", "")
    yield from _table(record.members)
    yield ""
    for name, member in record.members.items():
        yield from _nested(member, f"{path}.{name}" if path else name)


def _nested(member: Member, path: str) -> Iterator[str]:
    """The sections of the settings within a setting."""
    shape: object = member.shape
    if isinstance(shape, ListOf):
        shape, path = shape.item, f"{path}[]"
    if isinstance(shape, Record):
        yield from _section(shape, path, f"`{path}`")


def _table(members: Mapping[str, Member]) -> Iterator[str]:
    yield "| setting | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, member in members.items():
        about = member.about.replace("|", "\\|")
        yield f"| `{name}` | {member.shape.name().replace('|', chr(92) + '|')} | {_default(member)} | {about} |"


def _default(member: Member) -> str:
    if member.required:
        return "must be said"
    if member.default is None or member.default == "":
        return "none"
    if member.default is DANGEROUS_VARIABLES:
        return "see below"
    if isinstance(member.default, Mapping):
        return "its defaults" if not member.default else f"`{json.dumps(member.default)}`"
    if isinstance(member.default, bool | tuple):
        return f"`{json.dumps(member.default)}`"
    return f"`{member.default}`"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(replace_reference(place.read_text(encoding="utf-8")), encoding="utf-8")
