"""What clients do, and what a registry does by itself, while something goes wrong (world.py).

A scenario is two steps: one that brings a world to a state, and one during which one thing goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Final

from ocispec.digest import Digest
from registry.errors import RegistryError
from registry.housekeeping import tidy
from tests.registry.faults.world import Ground, RefusedError, World
from tests.support.faults import Killed, Plan, in_turns, plans
from tests.support.images import image
from tests.support.turns import taken

A, B = "team/a", "team/b"
ONE, TWO = image([{"x": b"one"}]), image([{"x": b"two"}])
PART: Final = 4096
"""Bytes of a part of a multipart upload: smaller than an engine takes otherwise, which makes the tests quick."""
SMALL: Final = [b"first ", b"second ", b"third"]
LARGE: Final = [b"1" * (PART + 10), b"2" * 1000, b"3" * 100]
"""The first fills a part of a multipart upload, and begins another one."""

Step = Callable[[World], None]

NUMBERS: Final = count(1)


def nothing(at: World) -> None:
    """Nothing is there."""


# ---- what clients do ------------------------------------------------------------------------------------------------


def push_a_blob(at: World) -> None:
    """In one request."""
    at.push_blob(A, b"in one piece")


def push_chunks(at: World) -> None:
    """In several."""
    at.push_chunks(A, LARGE if at.ground.bucket else SMALL)


def push_chunks_by_sha512(at: World) -> None:
    """The hash is not known beside the session: the bytes are read again."""
    chunks = LARGE if at.ground.bucket else SMALL
    at.push_chunks(A, chunks[1:] if at.ground.bucket is None else [chunks[0], chunks[2]], algorithm="sha512")


def push_the_wrong_bytes(at: World) -> None:
    """They are refused, and there is never anything under the digest."""
    digest = Digest.of(b"what was promised")
    wrong = LARGE[0] if at.ground.bucket else b"something else"
    at.ask("POST", f"/v2/{A}/blobs/uploads/?digest={digest}", 400, body=wrong)
    location = at.ask("POST", f"/v2/{A}/blobs/uploads/", 202).headers["Location"]
    location = at.ask("PATCH", location, 202, body=wrong).headers["Location"]
    at.ask("PUT", f"{location}?digest={digest}", 400)
    at.ask("GET", f"/v2/{A}/blobs/{digest}", 404)


def with_an_image(at: World) -> None:
    """An image is there."""
    at.push(A, ONE, "1")


def with_blobs_of_two(at: World) -> None:
    """An image, and the blobs of another one."""
    at.push(A, ONE, "1")
    for content in TWO.blobs.values():
        at.push_blob(A, content)


def mount(at: World) -> None:
    """A blob of another repository."""
    digest = at.trying(ONE.layers[0].blob)
    answer = at.request("POST", f"/v2/{B}/blobs/uploads/?mount={digest}&from={A}")
    if answer.status_code != 201:
        assert answer.status_code == 503, answer.text
        raise RefusedError
    at.blobs.add((B, digest))


def move_a_tag(at: World) -> None:
    """To another image."""
    at.tags[A, "1"] = {ONE.digest, TWO.digest}
    path = f"/v2/{A}/manifests/1"
    at.ask("PUT", path, 201, body=TWO.manifest.raw, Content_Type=TWO.manifest.media_type)
    at.tags[A, "1"] = {TWO.digest}
    at.images[A, TWO.digest] = TWO


def push_an_image(at: World) -> None:
    """Its blobs, its manifest and a tag."""
    at.push(A, TWO, "2")


def delete_all(at: World) -> None:
    """Tag, manifest, and blob."""
    layer = ONE.layers[0].descriptor.digest
    at.delete(f"/v2/{A}/manifests/1", forget=lambda: at.tags[A, "1"].add(None))
    at.tags[A, "1"] = {None}
    at.delete(f"/v2/{A}/manifests/{ONE.digest}", forget=lambda: at.forget_image(A, ONE))
    at.delete(f"/v2/{A}/blobs/{layer}", forget=lambda: at.blobs.discard((A, layer)))


def cancel(at: World) -> None:
    """A session with some bytes."""
    chunk = (LARGE if at.ground.bucket else SMALL)[0]
    location = at.ask("POST", f"/v2/{A}/blobs/uploads/", 202).headers["Location"]
    location = at.ask("PATCH", location, 202, body=chunk).headers["Location"]
    at.delete(location, forget=lambda: None, done=204)


def pull(at: World) -> None:
    """Whatever a client gets is right."""
    assert at.ask("GET", f"/v2/{A}/manifests/1", 200).data == ONE.manifest.raw
    for digest, content in ONE.blobs.items():
        assert at.ask("GET", f"/v2/{A}/blobs/{digest}", 200).data == content


# ---- what the registry does by itself -------------------------------------------------------------------------------


def with_garbage(at: World) -> None:
    """One image stays, another one was deleted; a session was never finished; a blob belongs to nothing."""
    at.push(A, ONE, "1")
    at.push(B, TWO, "1")
    at.delete(f"/v2/{B}/manifests/{TWO.digest}", forget=lambda: at.forget_image(B, TWO))
    at.tags[B, "1"] = {None}
    chunk = (LARGE if at.ground.bucket else SMALL)[0]
    location = at.ask("POST", f"/v2/{A}/blobs/uploads/", 202).headers["Location"]
    at.ask("PATCH", location, 202, body=chunk)
    at.blobs = {held for held in at.blobs if held[0] == A}
    at.later += timedelta(days=2)


def collect(at: World) -> None:
    """Free what nothing needs."""
    run = at.collect()
    if run.tally.left:
        raise RefusedError(str(run.tally.left))


def expire(at: World) -> None:
    """Drop sessions past their end."""
    tidy(at.parts)


SCENARIOS: Final[list[tuple[Step, Step]]] = [
    (nothing, push_a_blob),
    (nothing, push_chunks),
    (nothing, push_chunks_by_sha512),
    (nothing, push_the_wrong_bytes),
    (with_an_image, mount),
    (with_blobs_of_two, move_a_tag),
    (with_an_image, push_an_image),
    (with_an_image, delete_all),
    (nothing, cancel),
    (with_an_image, pull),
    (with_garbage, collect),
    (with_garbage, expire),
]


def try_all(where: Ground, before: Step, step: Step, *, every: bool = True) -> str:
    """Run a scenario once for each point and kind of fault of this turn (`tests/support/turns.py`); returns how many.

    Without `every`, each point has one kind, the first one for one point and the second for the next.
    """

    def smoothly(plan: Plan) -> None:
        _one(where, before, step, plan)

    chosen = plans(smoothly) if every else in_turns(plans(smoothly))
    tried = [plan for plan in taken(chosen) if _one(where, before, step, plan)]
    assert tried
    return f"{step.__name__}: {len({plan.at for plan in tried})} points, {len(tried)} faults"


def _one(where: Ground, before: Step, step: Step, plan: Plan) -> bool:
    """Run a scenario with one fault; False if its point was not come to."""
    world = World(ground=where, folder=where.folder / f"world-{next(NUMBERS)}")
    try:
        before(world)
        world.restart(plan)
        _try(world, step)
        # An engine that failed once, and a registry that goes on: who tries again succeeds.
        if not plan.dead:
            world.later += timedelta(minutes=2)
            plan.disarm()
            step(world)
        world.restart()
        world.check()
        if plan.dead:
            world.later += timedelta(minutes=2)
            step(world)
            world.check()
        if plan.changes:
            world.check_rest()
    except Exception as error:
        error.add_note(f"{step.__name__}, {plan}")
        raise
    finally:
        world.remove()
    return plan.happened


def _try(world: World, step: Step) -> None:
    with suppress(RefusedError, RegistryError, Killed):
        step(world)
