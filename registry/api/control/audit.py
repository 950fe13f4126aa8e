"""The audit chain with its checkpoints, as `pratique audit` reads it.

| endpoint | who |
| --- | --- |
| GET /api/v1/audit?after=SEQ&limit= | auditor |
"""

from __future__ import annotations

import time
from typing import Final

from flask import Blueprint, Response
from sqlalchemy import select

from ocispec.strictjson import JsonValue
from registry.access import Role
from registry.api.base import json_response
from registry.api.control.shared import as_json, number_argument, require_role
from registry.audit import head, read
from registry.catalogue.schema import checkpoints
from registry.context import context
from registry.judge.jobs import JobKind, enqueue
from registry.statements import newest_checkpoint

blueprint = Blueprint("audit", __name__)

MAX_RECORDS: Final = 1000
SIGNING_SECONDS: Final = 2.0
"""How long an answer waits for the signature over the newest records; without it they come uncovered."""


@blueprint.get("/api/v1/audit")
def get_audit() -> Response:
    """Records after a number, and the checkpoints over them; `last` is the number of the last one here."""
    require_role(Role.AUDITOR)
    after = number_argument("after", 0, 2**53 - 1)
    limit = number_argument("limit", 100, MAX_RECORDS)
    context().reads.flush()
    _have_signed()
    with context().catalogue.read() as conn:
        records = read(conn, after=after, limit=limit)
        last = records[-1].seq if records else after
        signed = conn.scalars(
            select(checkpoints.c.envelope)
            .where(checkpoints.c.seq > after, checkpoints.c.seq <= last)
            .order_by(checkpoints.c.seq)
        ).all()
    members: dict[str, JsonValue] = {
        "records": [record.to_json() for record in records],
        "checkpoints": [as_json(envelope) for envelope in signed],
        "last": last,
    }
    return json_response(members)


def _have_signed() -> None:
    """Have the head of the chain signed now, and wait a moment for it: an auditor wants all of it to be covered."""
    with context().catalogue.write() as conn:
        enqueue(conn, JobKind.CHECKPOINT, now=context().clock())
        seq, _ = head(conn)
    context().judge.wake()
    deadline = time.monotonic() + SIGNING_SECONDS
    while time.monotonic() < deadline:
        with context().catalogue.read() as conn:
            if newest_checkpoint(conn) >= seq:
                return
        time.sleep(0.02)
