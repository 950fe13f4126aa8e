"""Where an image stands: its level and its approved parent, from content and signatures alone.

The rules, which the registry and, at every start, the host apply alike:

1. A *parent* is an image that was approved as a whole, whose diff_ids are a prefix of this image's. Labels,
   annotations and history never count (S5, S8). Among parents the longest is preferred.
2. An approval of an image counts for a level if the level's quorum of different owners, in the right roles, signed
   the same level, config, diff_ids and platform.
3. A parent must itself stand: its own level's rules hold for it, with a parent of its own where the level needs one.
4. An image is at a level if it stands on a level that this one allows, and if the whole image was approved (then
   also its config and root index), or each layer above the parent was approved by itself, as the level says.
5. A layer's own approval names its chain ID if the layer writes a package database (L8), or always, as the level
   says. Layers of lower levels may lie between the parent and the image's own level, never above it.
6. An image with exactly a parent's layers, and another config, is at the parent's level: its config decides.
7. Empty layers are content too: nothing is skipped when prefixes are compared, and an image that holds nothing but
   empty layers is nobody's parent.

Where several places are possible, all are returned, the preferred first: an image is judged by the first that
nothing stands against, so that one more approval never makes an image worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ocispec.digest import Digest
from policy.approvals import Counting, Discount, Refusal, Tally, count_approvals, soonest, union
from policy.model import LayerFacts, Signed
from policy.parents import NearParent, Parent, find_parents, same_platform
from policy.settings import Accepts, Level, spell_quorums
from policy.stack import Stack, stands_on
from policy.statements import ConfigFacts, ImageApproval, LayerApproval

MAX_APPROVALS = 512
"""Approvals of images, and of layers, that are looked at for one image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is placed: an image by its content, as the registry scanned it or as a clearance binds it."""

    manifest: Digest
    config: Digest
    config_facts: ConfigFacts
    platform: str
    layers: tuple[LayerFacts, ...]
    root_index: Digest
    reader: int
    format: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One place in the hierarchy that an image has, or, with `refusals`, the one that it fails to reach.

    Its own layers begin at index `own_from`. `config_approved` is true if enough owners approved this very config.
    `how` says in words what brought it there.
    """

    level: Level | None
    parent: Parent | None
    own_from: int
    config_approved: bool
    how: str
    rests_on: tuple[Digest, ...] = ()
    ends: datetime | None = None
    refusals: tuple[Refusal, ...] = ()


def place(
    levels: Sequence[Level],
    subject: Subject,
    image_approvals: Iterable[Signed[ImageApproval]],
    layer_approvals: Iterable[Signed[LayerApproval]],
    counting: Counting,
) -> tuple[Standing, ...]:
    """Return every place of `subject` under `levels`, preferred first; if there is none, one with its refusals."""
    images = sorted(image_approvals, key=_order)
    layers = sorted(layer_approvals, key=_order)
    if len(images) > MAX_APPROVALS or len(layers) > MAX_APPROVALS:
        return (_nowhere("too-many-approvals", subject, f"more than {MAX_APPROVALS} approvals were offered"),)
    if not subject.layers:
        return (_nowhere("no-layers", subject, "an image without layers holds nothing that could be approved"),)
    if not levels:
        return (_nowhere("no-levels", subject, "the policy has no levels"),)
    placing = _Placing(levels, subject, images, layers, counting)
    return placing.standings() or (placing.failure(),)


def _order(signed: Signed[ImageApproval] | Signed[LayerApproval]) -> tuple[str, tuple[str, ...]]:
    return str(signed.digest), tuple(signer.key for signer in signed.signers)


def _nowhere(reason: str, subject: Subject, message: str) -> Standing:
    refusal = Refusal(reason=reason, subject=str(subject.manifest), message=message)
    return Standing(level=None, parent=None, own_from=0, config_approved=False, how="", refusals=(refusal,))


class _Placing:
    """One placement: approvals sorted by what they are about, each count made once."""

    def __init__(
        self,
        levels: Sequence[Level],
        subject: Subject,
        images: Sequence[Signed[ImageApproval]],
        layers: Sequence[Signed[LayerApproval]],
        counting: Counting,
    ) -> None:
        self._levels = levels
        self._subject = subject
        self._counting = counting
        self._diff_ids = tuple(layer.diff_id for layer in subject.layers)
        self._own = [signed for signed in images if signed.statement.config == subject.config]
        self._tallies: dict[str, Tally] = {}
        self._stack = Stack(levels, subject.layers, layers, counting)
        content = (subject.config, self._diff_ids, subject.platform)
        self._parents, self._near = find_parents(levels, content, images, self._stack, counting)

    def standings(self) -> tuple[Standing, ...]:
        """Every place that holds, the longest parent first, then the lowest level."""
        places = (self._at(level, parent) for level in self._levels for parent in (*self._parents, None))
        found = [standing for standing in places if standing is not None]
        found += [_same_content(parent) for parent in self._parents if parent.length == len(self._diff_ids)]
        return tuple(sorted(found, key=_preference))

    def _at(self, level: Level, parent: Parent | None) -> Standing | None:
        """The image at `level` on `parent`, or None if it is not there."""
        below = parent.level if parent is not None else None
        if not stands_on(level, below):
            return None
        start = parent.length if parent is not None else 0
        whole = self._whole(level)
        accepts = level.approval.accepts
        cover = self._stack.cover(start, len(self._diff_ids), level, below)
        by_layers = accepts in {Accepts.LAYERS, Accepts.BOTH} or (accepts is Accepts.EITHER and not whole.met)
        by_image = accepts in {Accepts.IMAGE, Accepts.BOTH}
        if (by_layers and not cover.met) or (by_image and not whole.met):
            return None
        # An approval of the whole image that its level does not need still approves its config.
        owners = [f"{role} {owner}" for role, owner in whole.owners] if whole.met else list(cover.owners)
        return Standing(
            level=level,
            parent=parent,
            own_from=start,
            config_approved=whole.met,
            how=f"{'image' if whole.met else 'each own layer'} approved by {', '.join(owners)}",
            rests_on=union(
                whole.rests_on if whole.met else (),
                cover.rests_on if by_layers else (),
                parent.chain_rests_on if parent is not None else (),
            ),
            ends=soonest(
                (
                    whole.ends if whole.met else None,
                    cover.ends if by_layers else None,
                    parent.ends if parent is not None else None,
                )
            ),
        )

    def _whole(self, level: Level) -> Tally:
        """The count of approvals of this very image for `level`."""
        if level.name not in self._tallies:
            fitting: list[Signed[ImageApproval]] = []
            aside: list[Discount] = []
            for signed in self._own:
                if signed.statement.level == level.name:
                    mismatch = self._mismatch(signed)
                    if mismatch is None:
                        fitting.append(signed)
                    else:
                        aside.append(mismatch)
            self._tallies[level.name] = count_approvals(fitting, level, level.approval.image, self._counting, aside)
        return self._tallies[level.name]

    def _mismatch(self, signed: Signed[ImageApproval]) -> Discount | None:
        """Why an approval that names this config is of something else after all."""
        approval, subject = signed.statement, self._subject
        code = detail = ""
        if approval.diff_ids != self._diff_ids:
            code, detail = "approval-other-layers", "names this config with other layers"
        elif approval.config_facts != subject.config_facts:
            code, detail = "approval-other-config", "says other config fields than this config has"
        elif not same_platform(approval.platform, subject.platform):
            code, detail = "approval-other-platform", f"is for {approval.platform}, not {subject.platform}"
        elif (approval.reader, approval.format) != (subject.reader, subject.format):
            made = f"reader {approval.reader} and format {approval.format}"
            wanted = f"{subject.reader} and {subject.format}"
            code, detail = "approval-index-version", f"is of a root index by {made}, not {wanted}"
        elif approval.root_index != subject.root_index:
            code, detail = "approval-root-index", f"is of the root index {approval.root_index}"
        return Discount(code=code, statement=signed.digest, detail=f"an approval {detail}") if code else None

    def failure(self) -> Standing:
        """The level that it comes nearest to, and everything that keeps it from there."""
        level = self._aimed_at()
        if level is None:
            return self._unknown_image()
        parent = next((parent for parent in self._parents if stands_on(level, parent.level)), None)
        start = parent.length if parent is not None else 0
        whole = self._whole(level)
        cover = self._stack.cover(start, len(self._diff_ids), level, parent.level if parent is not None else None)
        accepts = level.approval.accepts
        refusals: list[Refusal] = []
        if parent is None and level.needs_parent:
            refusals.append(self._no_parent(level))
        either = accepts is Accepts.EITHER
        if not whole.met and (accepts in {Accepts.IMAGE, Accepts.BOTH} or (either and not cover.met and self._own)):
            refusals.append(self._image_refusal(level, whole))
        if accepts in {Accepts.LAYERS, Accepts.BOTH} or (either and not whole.met):
            refusals += cover.refusals
        return Standing(
            level=level,
            parent=parent,
            own_from=start,
            config_approved=whole.met,
            how="",
            refusals=tuple(refusals) or (self._image_refusal(level, whole),),
        )

    def _unknown_image(self) -> Standing:
        """Nobody approved anything of it, and it stands on nothing: judged as a root, if there is such a level."""
        root = next((level for level in self._levels if not level.needs_parent), self._levels[-1])
        refusal = self._no_parent(self._levels[-1])
        return Standing(level=root, parent=None, own_from=0, config_approved=False, how="", refusals=(refusal,))

    def _aimed_at(self) -> Level | None:
        """The level that somebody tried to approve it for; else the highest that may stand on its parent."""
        tried = {signed.statement.level for signed in self._own}
        asked = [level for level in self._levels if level.name in tried]
        if asked:
            return max(asked, key=lambda level: (len(self._whole(level).owners), level.rank))
        names = self._stack.levels_tried(self._parents[0].length if self._parents else 0)
        reached = [level for level in self._levels if level.name in names]
        if not reached:
            below = [parent.level.name for parent in self._parents[:1]] + [one.approval.level for one in self._near[:1]]
            reached = [level for level in self._levels if set(below) & set(level.stands_on)]
        return reached[-1] if reached else None

    def _no_parent(self, level: Level) -> Refusal:
        bases = " or ".join(level.stands_on)
        if self._parents:
            other = self._parents[0]
            return Refusal(
                reason="level-order",
                subject=str(self._subject.manifest),
                message=f"stands on {other.manifest} of level {other.level.name}; {level.name} stands on {bases}",
            )
        if self._near:
            return _near_parent(self._near[0])
        message = f"no approved image's layers are the first of its {_layers(len(self._diff_ids))}"
        fix = f"build it on an approved image of level {bases}"
        for root in self._levels:
            if not root.needs_parent:
                message += f"; nor is it approved for {root.name} itself: {self._whole(root).explain()}"
                fix += f", or have it approved for {root.name} by {spell_quorums(root.approval.image)}"
        return Refusal(reason="no-approved-parent", subject=str(self._subject.manifest), message=message, fix=fix)

    def _image_refusal(self, level: Level, whole: Tally) -> Refusal:
        return Refusal(
            reason=whole.code or "image-not-approved",
            subject=str(self._subject.manifest),
            message=f"the image is not approved for level {level.name}: {whole.explain()}",
            fix=f"have it approved for {level.name} by {spell_quorums(whole.wanted)}",
        )


def _same_content(parent: Parent) -> Standing:
    return Standing(
        level=parent.level,
        parent=parent,
        own_from=parent.length,
        config_approved=False,
        how=f"the layers of the approved image {parent.manifest}, with another config",
        rests_on=parent.chain_rests_on,
        ends=parent.ends,
    )


def _near_parent(near: NearParent) -> Refusal:
    approval = near.approval
    begins = f"begins with the {_layers(len(approval.diff_ids))} of {approval.manifest}"
    return Refusal(
        reason="parent-not-approved",
        subject=str(approval.manifest),
        message=f"{begins}, whose approval for {approval.level} does not hold: {near.why}",
        fix=f"have that image approved for {approval.level} again, or build on another",
    )


def _preference(standing: Standing) -> tuple[int, int, str]:
    parent, level = standing.parent, standing.level
    rank = level.rank if level is not None else -1
    return (-parent.length if parent is not None else 0, rank, str(parent.manifest) if parent is not None else "")


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"
