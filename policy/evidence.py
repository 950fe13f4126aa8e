"""Gathering Evidence: what was signed about an image, and what was found in it, at one time.

The sources are passed in. What a source offers is looked at once, verified, and kept only if it can matter for this
image, so that equal facts make equal evidence, whatever order they came in and whatever else lay beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar, cast

from ocispec.digest import Digest
from policy.believe import verify_many
from policy.codec import Verify, encode_evidence
from policy.errors import PolicyError, TrustError
from policy.globs import Glob
from policy.model import Evidence, FileChange, ImageFacts, RejectedStatement, Signed
from policy.statements import ImageApproval, LayerApproval, RevocationList, Waiver
from policy.times import whole_seconds
from policy.trust import Trust
from scanner.model import Report

__all__ = ["Scan", "StatementSource", "Verify", "gather"]

T = TypeVar("T")

MAX_CHANGES: Final = 20_000
"""Changes of lower layers' files that evidence holds; more are cut, and that is Unknown to the rule that asks."""


class StatementSource(Protocol):
    """Where signed statements are kept (the registry's store and catalogue, or a folder)."""

    def envelopes(self, image: ImageFacts) -> Iterable[bytes]:
        """The DSSE envelopes that may concern `image`: approvals of it, of its layers and of images that its
        layers begin with, waivers, and withdrawals. More do no harm."""

    def revocation_list(self) -> bytes | None:
        """The envelope of the newest revocation list, None if there is none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the scanner and the merged tree say of an image; `report` is None where the scan failed.

    `changes_truncated` is true where there were more changes than are listed. `errors` say what failed, in words;
    without a report there is always one.
    """

    report: Report | None
    changes: Sequence[FileChange] = ()
    errors: Sequence[str] = ()
    changes_truncated: bool = False


def gather(image: ImageFacts, *, statements: StatementSource, trust: Trust, scan: Scan, now: datetime) -> Evidence:
    """Return the evidence on `image`; a statement that `trust` does not believe is listed as rejected.

    Raises:
        PolicyError: `now` or the image's `first_seen` is not an aware time, or the evidence cannot be encoded.
    """
    now = whole_seconds(_aware(now, "now"))
    believed = verify_many(trust, statements.envelopes(image), now)
    revocations, rejected = _revocations(statements.revocation_list(), trust, now)
    report = scan.report
    errors = [*scan.errors, *(() if report is not None or scan.errors else ("there is no report",))]
    changes = sorted(set(scan.changes), key=lambda change: (change.layer, change.path, change.lower_layer, change.kind))
    layer_ids = {layer.diff_id for layer in image.layers}
    kept = {
        *(signed.digest for signed in believed.image_approvals if _about_image(signed, image)),
        *(signed.digest for signed in believed.layer_approvals if signed.statement.diff_id in layer_ids),
        *(signed.digest for signed in believed.waivers if _in_scope(signed, image)),
    }
    withdrawn = {rejected.digest for rejected in believed.rejected if rejected.code == "withdrawn"}
    evidence = Evidence(
        image=replace(image, first_seen=whole_seconds(_aware(image.first_seen, "first_seen"))),
        operating_system=report.inventory.operating_system if report is not None else None,
        components=_ordered(report.inventory.components if report is not None else ()),
        findings=_ordered(report.findings if report is not None else ()),
        unknowns=_ordered((*report.inventory.unknowns, *report.unknowns) if report is not None else ()),
        changes=tuple(changes[:MAX_CHANGES]),
        changes_truncated=scan.changes_truncated or len(changes) > MAX_CHANGES,
        image_approvals=_only(believed.image_approvals, kept),
        layer_approvals=_only(believed.layer_approvals, kept),
        waivers=_only(believed.waivers, kept),
        revocations=revocations,
        rejected=_ordered((*believed.rejected, *rejected)),
        data=_ordered(report.data if report is not None else ()),
        scanner_version=report.scanner_version if report is not None else "",
        errors=tuple(sorted(errors)),
        now=now,
        withdrawals=tuple(signed for signed in believed.withdrawals if signed.statement.statement in withdrawn),
    )
    return _encodable(evidence)


def _revocations(
    envelope: bytes | None, trust: Trust, now: datetime
) -> tuple[Signed[RevocationList] | None, tuple[RejectedStatement, ...]]:
    if envelope is None:
        return None, ()
    try:
        return trust.verify(envelope, RevocationList, now), ()
    except TrustError as error:
        return None, (RejectedStatement(digest=Digest.of(envelope), code=error.code, detail=error.detail),)


def _about_image(signed: Signed[ImageApproval], image: ImageFacts) -> bool:
    """An approval of this config, or of an image whose layers this one begins with."""
    approval = signed.statement
    diff_ids = tuple(layer.diff_id for layer in image.layers)
    return approval.config == image.config or (
        bool(approval.diff_ids) and approval.diff_ids == diff_ids[: len(approval.diff_ids)]
    )


def _in_scope(signed: Signed[Waiver], image: ImageFacts) -> bool:
    try:
        return Glob.compile(signed.statement.scope).matches(f"{image.registry}/{image.repository}")
    except PolicyError:
        # It cannot count, and evaluating it says so.
        return True


S = TypeVar("S", ImageApproval, LayerApproval, Waiver)


def _only(signed: Iterable[Signed[S]], kept: set[Digest]) -> tuple[Signed[S], ...]:
    return tuple(sorted((each for each in signed if each.digest in kept), key=lambda each: each.digest))


def _ordered(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(sorted(set(values), key=repr))


def _aware(time: datetime, what: str) -> datetime:
    if time.tzinfo is None:
        raise PolicyError(f"{what}: {time!r} has no time zone")
    return time


def _encodable(evidence: Evidence) -> Evidence:
    """The evidence with each name that is not Unicode spelled in escapes.

    Paths are bytes, and a layer may hold any; a report carries them with lone surrogates, which JSON cannot.
    """
    try:
        encode_evidence(evidence)
    except PolicyError:
        evidence = cast(Evidence, _escaped(evidence))
        encode_evidence(evidence)
    return evidence


def _escaped(value: Any) -> Any:
    if isinstance(value, Signed):
        return value
    if type(value) is str:
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, tuple):
        return tuple(_escaped(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type | Digest):
        return replace(value, **{field.name: _escaped(getattr(value, field.name)) for field in fields(value)})
    return value
