"""File shadowing: a layer above the parent that replaces, removes or re-owns a file of the parent's layers.

The scanner's inventory says that the base's openssl is mended; a layer that puts another libssl in its place makes
that a lie. So files that a package of the parent owns may not be touched, nor any file under `protect`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from policy.globs import Glob, any_of
from policy.model import FileChange, Verdict
from policy.rules.interface import Kind, View, act, deny, unknown
from policy.settings import Action, Check
from policy.shape import GLOB, ListOf, Member, Word


class Change(StrEnum):
    """What was done to a lower layer's file."""

    REPLACED = "replaced"
    REMOVED = "removed"
    METADATA = "metadata"


_VERBS = {Change.REPLACED: "replaces", Change.REMOVED: "removes", Change.METADATA: "changes owner or mode of"}
_REASONS = {
    Change.REPLACED: "replaces-parent-file",
    Change.REMOVED: "removes-parent-file",
    Change.METADATA: "changes-parent-file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which changes count, what is done about files that no package owns, and paths with rules of their own."""

    changes: tuple[Change, ...]
    unowned: Action
    protect: tuple[Glob, ...]
    ignore: tuple[Glob, ...]


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""
    protected, ignored = any_of(settings.protect), any_of(settings.ignore)
    counted = {str(change) for change in settings.changes}
    known = {str(change) for change in Change}

    def judge(change: FileChange, parent: str) -> Iterable[Verdict]:
        path = change.path if change.path.startswith("/") else f"/{change.path}"
        # A kind of change that this code does not know yet is none of those that a policy let pass.
        if change.kind in known - counted or (ignored(path) and not protected(path)):
            return ()
        kind = Change(change.kind) if change.kind in known else Change.REPLACED
        owner = f"owned by {change.owner}" if change.owner else "of no package"
        below = f"layer {change.lower_layer} of the parent {parent}"
        refusal = deny(
            rule,
            _REASONS[kind],
            path,
            f"layer {change.layer} {_VERBS[kind]} {path}, {owner}, of {below}",
            layer=change.layer,
            fix="leave the parent's files alone, or build on a parent that has the wanted ones",
        )
        return act(Action.DENY if change.owner or protected(path) else settings.unowned, refusal)

    def check(view: View) -> Iterable[Verdict]:
        parent = view.standing.parent
        if parent is None:
            return
        if view.evidence.changes_truncated:
            manifest = str(view.evidence.image.manifest)
            yield unknown(
                rule, "changes-truncated", manifest, "more of the lower layers' files change than were listed"
            )
        for change in view.evidence.changes:
            if view.is_own(change.layer) and not view.is_own(change.lower_layer):
                yield from judge(change, str(parent.manifest))

    return check


KIND = Kind(
    name="shadowing",
    about="Which of the parent's files the layers above it may change.",
    reasons={
        "replaces-parent-file": "another file, or another kind of entry, stands in its place",
        "removes-parent-file": "a whiteout or an opaque directory hides it",
        "changes-parent-file": "it has another owner, mode or attributes",
        "changes-truncated": "there were more changes than the evidence holds",
    },
    members={
        "changes": Member(
            shape=ListOf(Word(Change), least=1, most=3),
            about="Which kinds of change count.",
            default=("replaced", "removed", "metadata"),
        ),
        "unowned": Member(shape=Word(Action), about="What to do about files that no package owns.", default="allow"),
        "protect": Member(shape=ListOf(GLOB), about="Paths that must not change, whoever owns them.", default=()),
        "ignore": Member(
            shape=ListOf(GLOB), about="Paths that may change, whoever owns them; `protect` goes first.", default=()
        ),
    },
    settings=Settings,
    compile=compile_rule,
)
