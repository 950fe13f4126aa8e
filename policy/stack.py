"""Layers approved one by one: whether a run of them is covered, up to a level.

A layer may lie at its image's level or at a lower one; levels never go down again towards the top, and each
stands only on those that the policy names. Which levels a layer may lie at depends on the layers below it, so
the reachable levels are carried upwards, and any path that ends at the wanted level will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ocispec.digest import Digest
from policy.approvals import Counting, Discount, Refusal, Tally, count_approvals, soonest, union
from policy.model import LayerFacts, Signed
from policy.settings import Accepts, Chain, Level, spell_quorums
from policy.statements import LayerApproval


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """Whether single approvals cover a run of layers, on what that rests, and until when; else why not."""

    met: bool
    refusals: tuple[Refusal, ...] = ()
    rests_on: tuple[Digest, ...] = ()
    ends: datetime | None = None
    owners: tuple[str, ...] = ()


class Stack:
    """The layers of one image with the approvals of single layers; each count is made once."""

    def __init__(
        self,
        levels: Sequence[Level],
        layers: Sequence[LayerFacts],
        approvals: Sequence[Signed[LayerApproval]],
        counting: Counting,
    ) -> None:
        self._levels = levels
        self._layers = layers
        self._approvals: dict[tuple[Digest, str], list[Signed[LayerApproval]]] = {}
        for signed in approvals:
            key = (signed.statement.diff_id, signed.statement.level)
            self._approvals.setdefault(key, []).append(signed)
        self._counting = counting
        self._tallies: dict[tuple[int, str], Tally] = {}

    def cover(self, start: int, end: int, top: Level, below: Level | None) -> Cover:
        """Whether layers start..end are approved by themselves, standing on `below`, with the last at `top`.

        No layers are covered by nothing: an image without own layers needs an approval of its config.
        """
        if start >= end:
            return Cover(met=False)
        missing = [index for index in range(start, end) if not self._met_levels(index, top)]
        if missing:
            return Cover(met=False, refusals=tuple(self._not_approved(index, top) for index in missing))
        reached: list[Mapping[str, str]] = []
        for index in range(start, end):
            here = self._reachable(index, top, below, reached[-1] if reached else None)
            if not here:
                return Cover(met=False, refusals=(self._out_of_order(index, top),))
            reached.append(here)
        if top.name not in reached[-1]:
            return Cover(met=False, refusals=(self._out_of_order(end - 1, top),))
        return self._walk_down(start, top, reached)

    def levels_tried(self, start: int) -> set[str]:
        """The levels for which somebody approved one of the layers from `start` up, whether it counts or not."""
        own = {layer.diff_id for layer in self._layers[start:]}
        known = {level.name for level in self._levels if level.approval.accepts is not Accepts.IMAGE}
        return {level for diff_id, level in self._approvals if diff_id in own} & known

    def _reachable(
        self, index: int, top: Level, below: Level | None, before: Mapping[str, str] | None
    ) -> dict[str, str]:
        """The levels at which this layer may lie, each with the level under it that allows it ("" for none)."""
        found: dict[str, str] = {}
        for level in self._met_levels(index, top):
            if before is None:
                if stands_on(level, below):
                    found[level.name] = ""
            else:
                under = next((name for name in before if name == level.name or name in level.stands_on), None)
                if under is not None:
                    found[level.name] = under
        return found

    def _walk_down(self, start: int, top: Level, reached: list[Mapping[str, str]]) -> Cover:
        name = top.name
        tallies: list[Tally] = []
        for offset in range(len(reached) - 1, -1, -1):
            tallies.append(self._tallies[start + offset, name])
            name = reached[offset][name]
        return Cover(
            met=True,
            rests_on=union(*(tally.rests_on for tally in tallies)),
            ends=soonest(tally.ends for tally in tallies),
            owners=tuple(sorted({owner for tally in tallies for _, owner in tally.owners})),
        )

    def _met_levels(self, index: int, top: Level) -> list[Level]:
        return [level for level in self._levels[: top.rank + 1] if self._tally(index, level).met]

    def _tally(self, index: int, level: Level) -> Tally:
        key = (index, level.name)
        if key not in self._tallies:
            wanted = () if level.approval.accepts is Accepts.IMAGE else level.approval.layers
            fitting: list[Signed[LayerApproval]] = []
            aside: list[Discount] = []
            for signed in self._approvals.get((self._layers[index].diff_id, level.name), ()):
                discount = _other_chain(signed, self._layers[index], level)
                if discount is None:
                    fitting.append(signed)
                else:
                    aside.append(discount)
            self._tallies[key] = count_approvals(fitting, level, wanted, self._counting, aside)
        return self._tallies[key]

    def _not_approved(self, index: int, top: Level) -> Refusal:
        tally = self._tally(index, top)
        fixes = [f"have this layer approved for {top.name} by {spell_quorums(top.approval.layers)}"]
        if top.approval.accepts is Accepts.EITHER:
            fixes.append(f"the whole image by {spell_quorums(top.approval.image)}")
        return Refusal(
            reason=tally.code or "layer-not-approved",
            subject=str(self._layers[index].diff_id),
            layer=index,
            message=f"layer {index} is not approved for level {top.name}: {tally.explain()}",
            fix=", or ".join(fixes),
        )

    def _out_of_order(self, index: int, top: Level) -> Refusal:
        names = ", ".join(level.name for level in self._met_levels(index, top))
        return Refusal(
            reason="level-order",
            subject=str(self._layers[index].diff_id),
            layer=index,
            message=f"layer {index} is approved for {names}, which may not lie here in an image of level {top.name}",
        )


def stands_on(level: Level, below: Level | None) -> bool:
    """True if something of `level` may stand on `below`, or on nothing if that is None."""
    return not level.needs_parent if below is None else below.name in level.stands_on


def _other_chain(signed: Signed[LayerApproval], layer: LayerFacts, level: Level) -> Discount | None:
    chain_id = signed.statement.chain_id
    if chain_id is not None and chain_id != layer.chain_id:
        detail = "an approval of this layer on other layers than these"
        return Discount(code="approval-other-chain", statement=signed.digest, detail=detail)
    if chain_id is None and (layer.writes_package_database or level.approval.chain is Chain.ALWAYS):
        why = "the layer writes a package database" if layer.writes_package_database else "the level wants one"
        detail = f"an approval without the chain ID of the layers below, and {why}"
        return Discount(code="approval-needs-chain", statement=signed.digest, detail=detail)
    return None
