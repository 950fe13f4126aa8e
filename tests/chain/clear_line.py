"""What every bad input must get: one clear line, an exit code that is not 0, the traceback where it is asked for, and
nothing lost or half-written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.chain.stage import Desk, Result, tree

TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One bad input: `prepare` makes it at a desk and returns the words of the command; `says` must be in its line."""

    name: str
    prepare: Callable[[Desk], Sequence[object]]
    says: tuple[str, ...]
    code: int = 1
    before: tuple[str, ...] = ()
    send: str = field(default="", repr=False)


def check(case: Case, desk: Desk) -> None:
    """Run it without and with --debug, at once; the desk's folder stays as it is.

    All but the host's own memory of what it was told and when: asking a registry may change that.
    """
    words = case.prepare(desk)
    earlier = _kept(desk)

    def run(*flags: str) -> Result:
        return desk.pratique(*flags, *words, before=case.before, send=case.send)

    with ThreadPoolExecutor(2) as pool:
        both = pool.submit(run), pool.submit(run, "--debug")
    plain, debugged = (each.result() for each in both)
    one_line(plain, case.code, *case.says)
    assert debugged.code == case.code, debugged
    assert TRACEBACK in debugged.err, debugged
    assert debugged.err.splitlines()[-1] == plain.err.strip(), debugged
    assert set(_kept(desk).items()) ^ set(earlier.items()) == set()


def _kept(desk: Desk) -> dict[str, str]:
    memory = (f"{desk.store}/host/", f"{desk.store}/lock")
    return {path: what for path, what in tree(desk.folder).items() if not path.startswith(memory)}


def one_line(result: Result, code: int, *says: str) -> None:
    """The command ended with `code` and said one line on standard error, with all of `says` in it, and nothing else."""
    assert result.code == code, result
    assert result.out == "", result
    assert result.err.startswith("pratique: "), result
    assert result.err.endswith("\n"), result
    assert len(result.err.splitlines()) == 1, result
    assert result.err.strip().isprintable(), result
    for text in says:
        assert text in result.err, (text, result)
