"""The account that the program starts as: some user ids (root's, by default) are not for every level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policy.model import Verdict
from policy.rules.interface import Kind, View, deny, unknown
from policy.settings import Check
from policy.shape import Integer, ListOf, Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """User ids that no program may start as."""

    uids: tuple[int, ...]


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""

    def check(view: View) -> Iterable[Verdict]:
        image = view.evidence.image
        said = image.config_facts.user or "(none: root)"
        if image.user is None:
            message = f"the user {said} is not in the image's own passwd, so its number is not known"
            yield unknown(rule, "account-unknown", "config user", message, fix="name a user that the image has")
        elif image.user.uid in settings.uids:
            message = f"it would start as user {said}, uid {image.user.uid}"
            yield deny(rule, "protected-account", "config user", message, fix="set another USER in the image")

    return check


KIND = Kind(
    name="account",
    about="Which users a program may not start as.",
    reasons={
        "protected-account": "the config's user is one of `uids`",
        "account-unknown": "the config's user could not be looked up in the image",
    },
    members={
        "uids": Member(
            shape=ListOf(Integer(0, 2**32 - 2), least=1, most=100),
            about="User ids that the image must not start as.",
            default=(0,),
        )
    },
    settings=Settings,
    compile=compile_rule,
)
