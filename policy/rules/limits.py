"""What a host may be asked for: memory, processes, network, capabilities, mounts, another user or command."""

from __future__ import annotations

from collections.abc import Iterable

from policy.globs import Glob, any_of
from policy.model import StartRequest, Verdict
from policy.rules.interface import deny
from policy.settings import StartTerms

RULE = "limits"


def limit_verdicts(terms: StartTerms, request: StartRequest) -> Iterable[Verdict]:
    """Everything that is asked for and not allowed."""
    for name, unit, asked, cap in (
        ("memory", " bytes", request.memory, terms.memory),
        ("pids", "", request.pids, terms.pids),
        ("cpus", " thousandths", request.cpus_milli, terms.cpus_milli),
    ):
        yield from _amount(name, unit, asked, cap)
    if request.network not in terms.networks:
        yield _not_allowed("network", request.network, terms.networks)
    for capability in request.capabilities:
        if capability not in terms.capabilities:
            yield _not_allowed("capability", capability, terms.capabilities)
    yield from _mounts(terms, request)
    for reason, asked_for, allowed in (
        ("writable-not-allowed", request.writable, terms.writable),
        ("user-override", request.user_override, terms.user_override),
        ("command-override", request.command_override, terms.command_override),
    ):
        if asked_for and not allowed:
            subject = reason.removesuffix("-not-allowed").replace("-", " ")
            yield deny(RULE, reason, subject, f"{subject}: asked for, and the policy does not allow it")


def _amount(name: str, unit: str, asked: int | None, cap: int | None) -> Iterable[Verdict]:
    if cap is None:
        return
    if asked is None:
        yield deny(RULE, f"{name}-unlimited", name, f"{name}: no limit was asked for; the cap is {cap}{unit}")
    elif asked > cap or asked < 0:
        yield deny(RULE, f"{name}-over-cap", name, f"{name}: {asked}{unit} were asked for; the cap is {cap}{unit}")


def _not_allowed(what: str, asked: str, allowed: tuple[str, ...]) -> Verdict:
    shown = ", ".join(allowed) or "none"
    return deny(RULE, f"{what}-not-allowed", asked[:200], f"{what} {asked[:200]!r} was asked for; allowed: {shown}")


def _mounts(terms: StartTerms, request: StartRequest) -> Iterable[Verdict]:
    kinds: tuple[tuple[str, tuple[str, ...], tuple[Glob, ...]], ...] = (
        ("mount", request.mounts, terms.mounts),
        ("writable-mount", request.writable_mounts, terms.writable_mounts),
        ("executable-mount", request.executable_mounts, terms.executable_mounts),
    )
    for what, sources, globs in kinds:
        allowed = any_of(globs)
        for source in sources:
            unasked = what != "mount" and source not in request.mounts
            if unasked or not _is_plain(source) or not allowed(source):
                yield _not_allowed(what, source, tuple(map(str, globs)))


def _is_plain(path: str) -> bool:
    """True for an absolute path that a glob can judge: what `..` or `//` would mean is for the kernel to say."""
    parts = path.split("/")
    return path.startswith("/") and "\0" not in path and not {".", "..", ""} & set(parts[1:])
