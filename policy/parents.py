"""Parents: the approved images whose diff_ids an image begins with.

Content and signatures decide, never a label (`org.opencontainers.image.base.*` lies: S8). A parent must stand by
the rules of its own level, down to one that needs no parent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.platform import Platform
from policy.approvals import Counting, count_approvals, soonest, union
from policy.model import Signed
from policy.settings import Accepts, Level
from policy.stack import Stack, stands_on
from policy.statements import ConfigFacts, ImageApproval


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """An approved image that another's layers begin with; `ends` is when its approvals no longer suffice."""

    level: Level
    manifest: Digest
    config: Digest
    config_facts: ConfigFacts
    length: int
    below: Parent | None
    rests_on: tuple[Digest, ...]
    ends: datetime | None

    @property
    def chain(self) -> tuple[Parent, ...]:
        """This parent, its own, and so on down."""
        return (self, *self.below.chain) if self.below is not None else (self,)

    @property
    def chain_rests_on(self) -> tuple[Digest, ...]:
        """The approvals that the whole chain needs."""
        return union(*(one.rests_on for one in self.chain))


@dataclass(frozen=True, slots=True, kw_only=True)
class NearParent:
    """An image that this one begins with, and that was approved once or by some, but not as its level wants."""

    approval: ImageApproval
    why: str


def find_parents(
    levels: Sequence[Level],
    image: tuple[Digest, tuple[Digest, ...], str],
    approvals: Sequence[Signed[ImageApproval]],
    stack: Stack,
    counting: Counting,
) -> tuple[tuple[Parent, ...], tuple[NearParent, ...]]:
    """Return every approved prefix, longest first, and those that nearly are.

    `image` is the config's digest, the diff_ids and the platform of the image whose parents are looked for. An
    image of the same layers and another config is among them; the image itself is not.
    """
    by_name = {level.name: level for level in levels}
    groups: dict[tuple[int, int, Digest, ConfigFacts], list[Signed[ImageApproval]]] = {}
    for signed in approvals:
        approval = signed.statement
        if approval.level in by_name and _begins_with(image, approval):
            key = (len(approval.diff_ids), by_name[approval.level].rank, approval.config, approval.config_facts)
            groups.setdefault(key, []).append(signed)
    found: list[Parent] = []
    near: list[NearParent] = []
    # Shorter prefixes and lower levels first: what a parent itself stands on was looked at before it.
    for key in sorted(groups, key=lambda key: (key[0], key[1], str(key[2]), repr(key[3]))):
        level = by_name[groups[key][0].statement.level]
        judged = _judge(level, groups[key], found, stack, counting)
        if isinstance(judged, Parent):
            found.append(judged)
        else:
            near.append(judged)
    return tuple(reversed(found)), tuple(reversed(near))


def _begins_with(image: tuple[Digest, tuple[Digest, ...], str], approval: ImageApproval) -> bool:
    config, diff_ids, platform = image
    return (
        approval.config != config
        and approval.diff_ids == diff_ids[: len(approval.diff_ids)]
        # An image of nothing but empty layers is the beginning of every image that somebody starts with them.
        and not all(is_empty_layer(diff_id) for diff_id in approval.diff_ids)
        and same_platform(approval.platform, platform)
    )


def _judge(
    level: Level, approvals: list[Signed[ImageApproval]], lower: list[Parent], stack: Stack, counting: Counting
) -> Parent | NearParent:
    approval = approvals[0].statement
    length = len(approval.diff_ids)
    whole = count_approvals(approvals, level, level.approval.image, counting)
    if not whole.met:
        return NearParent(approval=approval, why=whole.explain())
    by_layer = level.approval.accepts in {Accepts.LAYERS, Accepts.BOTH}
    for below in (*reversed(lower), None):
        under = below.level if below is not None else None
        if not stands_on(level, under):
            continue
        cover = stack.cover(below.length if below is not None else 0, length, level, under) if by_layer else None
        if cover is not None and not cover.met:
            continue
        return Parent(
            level=level,
            manifest=min(signed.statement.manifest for signed in approvals),
            config=approval.config,
            config_facts=approval.config_facts,
            length=length,
            below=below,
            rests_on=union(whole.rests_on, cover.rests_on if cover is not None else ()),
            ends=soonest(
                (
                    whole.ends,
                    cover.ends if cover is not None else None,
                    below.ends if below is not None else None,
                )
            ),
        )
    return NearParent(approval=approval, why="its own parent, or its layers, are not approved")


def same_platform(one: str, other: str) -> bool:
    """True if both spell the same platform, a default CPU variant aside; False if one of them spells none."""
    try:
        return Platform.parse(one).runs(Platform.parse(other))
    except SpecError:
        return False


def is_empty_layer(diff_id: Digest) -> bool:
    """True for a tar of nothing: two to twenty blocks of zeros (POSIX.1-2024, pax, "ustar Interchange Format")."""
    return diff_id in _empty_layers()


@cache
def _empty_layers() -> frozenset[Digest]:
    return frozenset(Digest("sha256", hashlib.sha256(bytes(512 * blocks)).hexdigest()) for blocks in range(2, 21))
