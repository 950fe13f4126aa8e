"""Which artifacts without a subject hosts may get: those whose type the policy in force names (trust.md, States)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from policy.errors import PolicyError
from policy.load import load_verified
from policy.settings import Policy
from registry.statements import current_policy, generation, trust_in_force

KEEP_SECONDS: Final = 60.0
"""How long a policy is believed without proving it again; a change of trust, policy or lists is seen at once."""

_log = logging.getLogger("pratique.registry")


class ServedArtifacts:
    """The policy in force, as far as artifacts go; for many threads."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """Nothing is read yet. `clock` gives aware times in UTC."""
        self._clock = clock
        self._lock = threading.Lock()
        self._generation = -1
        self._until = 0.0
        self._policy: Policy | None = None

    def serves(self, conn: Connection, artifact_type: str) -> bool:
        """True if hosts may get an artifact of this type that has no subject; never without a policy."""
        policy = self._current(conn)
        return policy is not None and policy.serves_artifact(artifact_type)

    def _current(self, conn: Connection) -> Policy | None:
        now_at = generation(conn)
        with self._lock:
            if now_at != self._generation or time.monotonic() >= self._until:
                self._policy = self._read(conn)
                self._generation = now_at
                self._until = time.monotonic() + KEEP_SECONDS
            return self._policy

    def _read(self, conn: Connection) -> Policy | None:
        now = self._clock()
        try:
            trust = trust_in_force(conn, now)
            signed = current_policy(conn, trust, now) if trust is not None else None
            return load_verified(signed.statement.document) if signed is not None else None
        except PolicyError as error:
            _log.warning("the stored policy is not believed, so no artifact without a subject is served: %s", error)
            return None
