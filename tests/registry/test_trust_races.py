"""States and tags while others change them: at each question to the signer, and with judges that are killed.

After each, what must always hold is looked at (`invariants.py`), on both databases.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.digest import Digest
from policy import dsse, wire
from policy.seal import seal
from policy.statements import TagStatement, Withdrawal
from registry.judge.jobs import CLAIM_SECONDS
from tests.registry.desk import Desk, artifact
from tests.registry.invariants import check
from tests.registry.test_trust_rules import attached
from tests.support import judging
from tests.support.bench import Bench
from tests.support.images import BuiltImage, image, index
from tests.support.trust import NOW, Keyring, keyring

QUESTIONS = ("judge", "tag")
"""What the signer is asked when an image is cleared: before anything is written, and in the transaction of it."""


def built(content: str = "#!", platform: str = "linux/amd64") -> BuiltImage:
    return image([{"bin/": b"", "bin/sh": content.encode()}], platform=platform)


def opened(folder: Path, database: str, ring: Keyring) -> Desk:
    bench = Bench(folder, database, ring=ring)
    bench.publish()
    bench.settle()
    return Desk(bench)


@pytest.fixture
def desk(tmp_path: Path, database: str) -> Iterator[Desk]:
    made = opened(tmp_path, database, keyring())
    yield made
    made.close()
    made.bench.close()


def approved(desk: Desk, repository: str, made: BuiltImage) -> Digest:
    return desk.bench.approve(repository, made, "base", desk.bench.ring.alice, desk.bench.ring.bob)


# ---- one change at each question -----------------------------------------------------------------------------------


Change = Callable[[Desk, str, BuiltImage, Digest], object]
"""What somebody does to a repository's image, whose approval has that digest, while it is cleared."""


CHANGES: dict[str, tuple[Change, int]] = {
    "revoked": (lambda desk, _name, made, _: desk.revoke(2, digests=(made.digest,)), 403),
    "withdrawn": (
        lambda desk, _name, _made, approval: desk.hand_in(
            seal(Withdrawal(statement=approval, reason="no", issued=desk.bench.now), desk.bench.ring.alice)
        ),
        403,
    ),
    "approved-again": (lambda desk, name, made, _: approved(desk, name, made), 200),
    "same-pushed-again": (lambda desk, name, made, _: desk.push(name, made, "1"), 200),
    "another-tag": (lambda desk, name, made, _: desk.push(name, made, "2"), 200),
    "tag-moved": (lambda desk, name, _made, _: desk.push(name, built("newer"), "1"), 200),
    "tag-deleted": (lambda desk, name, _made, _: desk.ask("pusher", "DELETE", f"/v2/{name}/manifests/1"), 200),
    "image-deleted": (
        lambda desk, name, made, _: desk.ask("pusher", "DELETE", f"/v2/{name}/manifests/{made.digest}"),
        404,
    ),
    "artifact": (lambda desk, name, made, _: attached(desk, artifact(made.descriptor), repository=name), 200),
    "newer-policy": (
        lambda desk, _name, _made, _: desk.hand_in(
            judging.published_policy(desk.bench.ring, 2, now=desk.bench.now + timedelta(seconds=1))
        ),
        200,
    ),
}
"""What happens, and what hosts get for the image's digest once all is judged."""


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_while_an_image_is_cleared(desk: Desk, question: str, name: str) -> None:
    change, status = CHANGES[name]
    made, repository = built(name), f"team/{name}"
    approval = approved(desk, repository, made)
    desk.push(repository, made, "1")
    beside = Beside(lambda: change(desk, repository, made, approval), inline=question == "judge")
    beside.at(desk.bench, question)
    desk.bench.settle()
    beside.join()
    desk.bench.pass_time(timedelta(minutes=2))  # what was put off is due
    desk.bench.settle()
    assert desk.get("host", repository, made.digest).status_code == status
    check(desk)


@dataclass
class Beside:
    """Something that happens when the signer is asked a question for the first time: at once, or in a thread.

    In the middle of a transaction of ours it would wait for us.
    """

    what: Callable[[], object]
    inline: bool
    happened: bool = False
    errors: list[BaseException] = field(default_factory=list)
    thread: threading.Thread | None = None

    def at(self, bench: Bench, question: str) -> None:
        """Wait for that question."""

        def before(asked: str) -> None:
            if asked != question or self.happened:
                return
            self.happened = True
            if self.inline:
                self.what()
                return
            self.thread = threading.Thread(target=self._run)
            self.thread.start()
            time.sleep(0.2)  # it gets as far as it can

        bench.signer.before = before

    def join(self) -> None:
        """Wait for its end."""
        assert self.happened
        if self.thread is not None:
            self.thread.join(60)
            assert not self.thread.is_alive()
        assert self.errors == []

    def _run(self) -> None:
        try:
            self.what()
        except BaseException as error:
            self.errors.append(error)


def test_an_index_and_a_child_that_is_revoked_meanwhile(desk: Desk) -> None:
    amd, arm = built("amd"), built("arm", "linux/arm64")
    both = index([amd, arm])
    for each in (amd, arm):
        approved(desk, "team/app", each)
    desk.push("team/app", both, "1")
    beside = Beside(lambda: desk.revoke(2, digests=(arm.digest,)), inline=True)
    beside.at(desk.bench, "index")
    desk.bench.settle()
    beside.join()
    desk.bench.pass_time(timedelta(minutes=2))
    desk.bench.settle()
    assert desk.get("host", "team/app", "1").status_code == 403
    assert desk.get("host", "team/app", amd.digest).status_code == 200
    check(desk)


# ---- judges that die at a question -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("question", ["judge", "tag", "index"])
def test_a_judge_that_is_killed_at_a_question_to_the_signer(
    tmp_path: Path, database: str, question: str, after: bool
) -> None:
    """After it: what the signer counted and signed is lost, and its number is not given again."""
    ring = keyring()
    desk = opened(tmp_path, database, ring)
    made = index([built("amd")])
    older = built("older")
    approved(desk, "team/app", older)
    desk.push("team/app", older, "1")
    desk.bench.settle()
    approved(desk, "team/app", made.images[0])
    desk.push("team/app", made, "1")
    number = desk.bench.memory.tag("team/app", "1")
    assert number is not None
    _close(desk)

    _in_child(lambda: _die_at(tmp_path, database, ring, question, after=after), expected=signal.SIGKILL)

    bench = Bench(tmp_path, database, ring=ring)
    desk = Desk(bench, accounts=False)
    served = desk.get("host", "team/app", "1")
    assert (served.status_code, served.headers["Docker-Content-Digest"]) == (200, str(older.digest))
    check(desk)
    bench.now = NOW + timedelta(seconds=CLAIM_SECONDS + 1)
    bench.settle()
    assert desk.get("host", "team/app", "1").headers["Docker-Content-Digest"] == str(made.digest)
    again = bench.memory.tag("team/app", "1")
    assert again is not None
    assert again.number > number.number
    check(desk)
    bench.close()


def _close(desk: Desk) -> None:
    desk.close()
    desk.bench.close()


def _die_at(folder: Path, database: str, ring: Keyring, question: str, *, after: bool) -> None:
    bench = Bench(folder, database, ring=ring)
    ask = bench.signer._ask

    def asked(name: str, answer: Callable[[], object]) -> object:
        if name == question and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = ask(name, answer)
        if name == question:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    type(bench.signer)._ask = lambda _self, name, answer: asked(name, answer)  # type: ignore[assignment,method-assign,return-value]  # in a child that dies
    bench.settle()


def _in_child(work: Callable[[], object], *, expected: int) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(9)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == expected


# ---- everything at once ----------------------------------------------------------------------------------------------


SECONDS = 4.0
"""How long at least; and until hosts were served several images, some of which were revoked."""

PATIENCE = 90.0
REVOKED = 4
PUSHERS = 3


@contextmanager
def judges(folder: Path, database: str, ring: Keyring, *, seed: int) -> Iterator[None]:
    """Two judges in processes of their own, one of which is killed again and again; time goes on for them."""
    stop = folder / "stop"
    pids = [
        _forked(lambda: _judge(folder, database, ring, stop)),
        _forked(lambda: _killer(folder, database, ring, seed)),
    ]
    try:
        yield
    finally:
        stop.touch()
        for pid in pids:
            os.waitpid(pid, 0)


def _forked(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def _judge(folder: Path, database: str, ring: Keyring, stop: Path) -> None:
    began = time.monotonic()
    bench = Bench(folder, database, ring=ring)
    while not stop.exists():
        bench.now = NOW + timedelta(seconds=int(60 * (time.monotonic() - began)))  # a minute each second
        bench.worker.step(0.02)


def _killer(folder: Path, database: str, ring: Keyring, seed: int) -> None:
    chance, stop = random.Random(seed), folder / "stop"
    while not stop.exists():
        pid = _forked(lambda: _judge(folder, database, ring, stop))
        time.sleep(chance.uniform(0.3, 1.5))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@dataclass
class Seen:
    """What hosts saw, and what had been revoked by when."""

    revoked: dict[str, float] = field(default_factory=dict)
    served: list[tuple[float, str, str]] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})
    wrong: list[str] = field(default_factory=list)


def test_pushes_approvals_revocations_and_hosts_at_once_with_judges_that_are_killed(
    tmp_path: Path, database: str
) -> None:
    ring = keyring()
    desk = opened(tmp_path, database, ring)
    images = [built(f"image {number}") for number in range(12)]
    refused = [built(f"never approved {number}") for number in range(4)]
    for number, each in enumerate(images):
        approved(desk, f"team/app-{number % PUSHERS}", each)
    _close(desk)
    with judges(tmp_path, database, ring, seed=7):
        bench = Bench(tmp_path, database, ring=ring)
        desk = Desk(bench, accounts=False)
        seen, over = Seen(), threading.Event()
        threads = [
            threading.Thread(target=_push, args=(desk, number, images, refused, over)) for number in range(PUSHERS)
        ]
        threads += [threading.Thread(target=_watch, args=(desk, seen, over))]
        for thread in threads:
            thread.start()
        number, began = 1, time.monotonic()
        gone: list[Digest] = []
        while time.monotonic() - began < SECONDS or len(gone) < REVOKED or max(list(seen.numbers.values())) < 2:
            assert time.monotonic() - began < PATIENCE
            time.sleep(SECONDS / 8)
            alive = {served for _, _, served in seen.served} - seen.revoked.keys()
            if len(gone) < REVOKED and alive:
                number += 1
                gone.append(next(each.digest for each in images if str(each.digest) in alive))
                desk.revoke(number, digests=tuple(gone))
                seen.revoked[str(gone[-1])] = time.monotonic()
        over.set()
        for thread in threads:
            thread.join(60)
    bench.now = NOW + timedelta(days=1)
    bench.post(judging.published_list(ring, number + 1, now=bench.now, digests=tuple(gone)))
    bench.settle()
    bench.pass_time(timedelta(minutes=2))
    bench.settle()
    assert seen.wrong == []
    never = {str(each.digest) for each in refused}
    for when, what, served in seen.served:
        assert served not in never, f"{what} served what nobody approved"
        assert when < seen.revoked.get(served, when + 1), f"{what} served {served} after it was revoked"
    assert len({served for _, _, served in seen.served}) > 1
    check(desk)
    for digest in gone:
        for repository in (f"team/app-{each}" for each in range(PUSHERS)):
            assert desk.get("host", repository, digest).status_code in {403, 404}
    _close(desk)


def _push(desk: Desk, number: int, images: list[BuiltImage], refused: list[BuiltImage], over: threading.Event) -> None:
    chance = random.Random(number)
    repository = f"team/app-{number}"
    mine = images[number::PUSHERS] + refused[:2]
    while not over.is_set():
        tag = chance.choice(("1", "2"))
        if chance.random() < 0.1:
            desk.ask("pusher", "DELETE", f"/v2/{repository}/manifests/{tag}")
        else:
            desk.push(repository, chance.choice(mine), tag)
        time.sleep(0.02)


def _watch(desk: Desk, seen: Seen, over: threading.Event) -> None:
    """A host that asks for tags: what it gets, when it asked, and the numbers of the statements."""
    while not over.is_set():
        time.sleep(0.02)
        for what in (f"team/app-{number}:{tag}" for number in range(PUSHERS) for tag in ("1", "2")):
            repository, _, tag = what.rpartition(":")
            asked = time.monotonic()
            answer = desk.get("host", repository, tag)
            if answer.status_code == 200:
                seen.served.append((asked, what, answer.headers["Docker-Content-Digest"]))
            elif answer.status_code not in {403, 404}:
                seen.wrong.append(f"{what}: {answer.status_code}")
            told = desk.ask("host", "GET", f"/api/v1/tags/{tag}/{repository}").get_json().get("statement")
            if told is not None:
                said = wire.decode(dsse.parse(json.dumps(told).encode(), what=what).payload, what=what)
                assert isinstance(said, TagStatement)
                if said.number < seen.numbers.setdefault(what, 0):
                    seen.wrong.append(f"{what}: number {said.number} after {seen.numbers[what]}")
                seen.numbers[what] = max(said.number, seen.numbers[what])
