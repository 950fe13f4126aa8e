"""The errors of policy: a policy, key or statement that cannot be read. A denial is never one of these."""

from __future__ import annotations


class PolicyError(Exception):
    """A policy or a piece of evidence cannot be used; says which, got and expected."""


class TrustError(PolicyError):
    """A key, a signature or a signed statement cannot be believed.

    `code` is a stable word for the refusal (`bad-signature`, `unknown-key`, `expired`, `number-went-back`, …),
    `subject` the object it is about.
    """

    def __init__(self, code: str, subject: str, detail: str) -> None:
        """Say which object is refused, by which stable code, and got/expected in `detail`."""
        super().__init__(f"{subject}: {detail}")
        self.code = code
        self.subject = subject
        self.detail = detail
