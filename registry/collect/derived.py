"""Derived objects that go: made from layers and images that are gone, by older versions, and evidence nobody names.

Each is looked at only after the grace, so nothing goes that was made a moment ago, and whose row is still to come.
All but evidence can be made again, and is, if it is missed; evidence is of one moment, and never stored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from ocispec.digest import Digest
from registry.catalogue.leftovers import live_chains, live_diff_ids, live_images, named_evidence
from registry.collect.orphans import chunks
from registry.collect.report import Reason
from registry.collect.run import PAGE, Run
from registry.judge.derived import assembly_key, evidence_key, report_key, root_index_key
from registry.judge.layers import layer_keys
from registry.store.interface import StoredDerived

Live = Callable[[Connection, Iterable[Digest]], set[Digest]]

_ANY: Final = Digest.of(b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One kind of derived object: its name as this version makes it, and which of some subjects are still there."""

    name: str
    live: Live
    reason: Reason = Reason.DERIVED

    @property
    def stem(self) -> str:
        """The name without its versions."""
        return _stem(self.name)


KINDS: Final = (
    *(_Kind(name=key.name, live=live_diff_ids) for key in layer_keys(_ANY)),
    _Kind(name=assembly_key(_ANY).name, live=live_chains),
    _Kind(name=root_index_key(_ANY).name, live=live_chains),
    _Kind(name=report_key(_ANY).name, live=live_images),
    _Kind(name=evidence_key(_ANY).name, live=named_evidence, reason=Reason.EVIDENCE),
)
"""All kinds; an object of another one is left alone."""


def _stem(name: str) -> str:
    return name.rpartition("-v")[0]


def drop_derived(run: Run) -> None:
    """Go through all derived objects, and remove those that nobody needs."""
    kinds = {kind.stem: kind for kind in KINDS}
    for page in chunks(run.store.derived_listing(), PAGE):
        run.beat()
        run.tally.looked_at += len(page)
        old = [found for found in page if found.changed < run.old]
        for stem in sorted({_stem(found.key.name) for found in old}):
            of_kind = [found for found in old if _stem(found.key.name) == stem]
            if stem in kinds:
                _drop(run, kinds[stem], of_kind)
            else:
                for _ in of_kind:
                    run.tally.leave("of an unknown kind")
        run.list_pending()


def _drop(run: Run, kind: _Kind, objects: list[StoredDerived]) -> None:
    with run.catalogue.look() as conn:
        live = kind.live(conn, {found.key.subject for found in objects})
    for found in objects:
        if found.key.subject in live and found.key.name == kind.name:
            continue
        if not run.dry:
            run.store.delete_derived(found.key)
        run.tally.note(kind.reason, f"{found.key.subject} {found.key.name}", found.size)
