"""An engine that is silent, slow, broken or lying: nobody waits longer than is set, nothing wrong comes."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ocispec.digest import Digest
from registry.errors import StorageError, StorageFullError, TooLargeError, TooManyRequestsError
from registry.settings_storage import S3Settings
from registry.store.keys import DerivedKey
from registry.store.s3 import S3Store
from registry.store.s3_bucket import Bucket
from tests.support import badengine
from tests.support.badengine import CONTENT, Behaviour, bad_engine, broken, refusing, stalled, whole

DIGEST = Digest.of(CONTENT)
BLOB = Digest.of(b"x")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """What is done inside takes no longer (and two seconds for a machine that has much to do)."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < seconds + 2, f"took {took:.1f} s, allowed are {seconds}"


# ---- downloads that break off -------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", [0, 1, 1000, 2**20, len(CONTENT) - 1])
def test_a_download_that_breaks_off_goes_on_at_the_right_byte(breaks: int) -> None:
    with bad_engine(broken(breaks), broken(300_000), whole) as engine:
        with S3Store(engine.settings()).open(DIGEST) as stream:
            assert stream.read() == CONTENT
        starts = [0 if asked is None else int(asked[6:].partition("-")[0]) for _, asked in engine.asked]
        assert starts == sorted(starts)


def test_a_part_that_breaks_off_ends_where_it_was_to_end() -> None:
    with bad_engine(broken(500), whole) as engine:
        with S3Store(engine.settings()).open(DIGEST, start=1000, length=2_000_000) as stream:
            assert stream.read() == CONTENT[1000:2_001_000]
        assert engine.asked[0] == ("GET", "bytes=1000-2000999")
        assert engine.asked[-1][1] is not None
        assert engine.asked[-1][1].endswith("-2000999")


def test_a_download_that_goes_silent_goes_on_on_another_connection() -> None:
    with bad_engine(stalled(1_500_000), whole) as engine:
        store = S3Store(engine.settings(timeout=1))
        with at_most(3), store.open(DIGEST) as stream:
            assert stream.read() == CONTENT


def test_a_download_that_always_breaks_off_fails_with_what_is_missing() -> None:
    with bad_engine(broken(1000), broken(0)) as engine:
        missing = len(CONTENT) - 1000
        with (
            S3Store(engine.settings()).open(DIGEST) as stream,
            pytest.raises(StorageError, match=f"last {missing} bytes"),
        ):
            stream.read()
        assert len(engine.asked) < 10


def test_another_object_is_never_joined_to_the_first_half() -> None:
    with bad_engine(broken(1000), badengine.replaced) as engine:
        store = S3Store(engine.settings())
        with store.open(DIGEST) as stream, pytest.raises(StorageError, match="replaced while it was read"):
            stream.read()


def test_an_engine_that_ignores_ranges_is_not_believed() -> None:
    with bad_engine(badengine.all_of_it) as engine, pytest.raises(StorageError, match="asked for bytes=5-9"):
        S3Store(engine.settings()).open(DIGEST, start=5, length=5)


# ---- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [badengine.silent, badengine.trickling_head, refusing(503, "SlowDown")])
def test_a_call_ends_with_the_deadline(behaviour: Behaviour) -> None:
    with bad_engine(behaviour) as engine, at_most(3):
        store = S3Store(engine.settings(timeout=2, deadline=3))
        with pytest.raises(StorageError):
            store.size(BLOB)


@pytest.mark.parametrize("behaviour", [badengine.silent, badengine.trickling_head, badengine.trickling_body])
def test_a_download_ends_with_the_deadline(behaviour: Behaviour) -> None:
    with bad_engine(behaviour) as engine, at_most(2):
        store = S3Store(engine.settings(timeout=1, deadline=2, minimum_rate=2**20))
        with pytest.raises(StorageError), store.open(DIGEST) as stream:
            stream.read()


def test_a_reader_that_takes_its_time_does_not_use_up_the_engines() -> None:
    with bad_engine(whole) as engine:
        store = S3Store(engine.settings(timeout=1, deadline=1, minimum_rate=2**40))
        with store.open(DIGEST) as stream:
            first = stream.read(1000)
            time.sleep(1.5)
            assert first + stream.read() == CONTENT


def test_a_derived_object_that_trickles_does_not_hold_the_judge() -> None:
    with bad_engine(badengine.trickling_body) as engine, at_most(2):
        store = S3Store(engine.settings(timeout=1, deadline=2, minimum_rate=2**20))
        with pytest.raises(StorageError):
            store.get_derived(DerivedKey(BLOB, "listing"))


def test_an_engine_that_does_not_read_ends_an_upload_with_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        settings = S3Settings(
            bucket="b",
            access_key="k",
            secret_key="a-secret-of-the-tests",
            endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}",
            timeout=1,
            deadline=2,
            minimum_rate=2**30,
        )
        content = bytes(32 * 2**20)
        with at_most(2), pytest.raises(StorageError):
            S3Store(settings).put(Digest.of(content), [content])


def test_a_failed_call_is_tried_again() -> None:
    failing = refusing(503, "SlowDown"), refusing(500, "InternalError")
    with bad_engine(*failing, badengine.accepting) as engine:
        S3Store(engine.settings()).put(BLOB, [b"x"])
        assert [method for method, _ in engine.asked] == ["PUT"] * 3


# ---- what is no answer ---------------------------------------------------------------------------------------------


def test_a_list_that_goes_in_circles_ends() -> None:
    with bad_engine(badengine.endless_list) as engine:
        with pytest.raises(StorageError, match="does not go on where its last page ended"):
            list(S3Store(engine.settings()).listing())
        assert len(engine.asked) == 2


def test_an_answer_without_end_is_not_read() -> None:
    with bad_engine(badengine.huge_answer) as engine:
        store = S3Store(engine.settings())
        with at_most(20), pytest.raises(StorageError, match="an answer of more than 16777216 bytes"):
            list(store.listing())


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "NoSuchBucket", "tmp/check: the bucket bucket does not exist"),
        (403, "InvalidAccessKeyId", "tmp/check: the engine does not know the access key"),
        (403, "SignatureDoesNotMatch", "tmp/check: the engine does not accept the access key with this secret key"),
        (403, "AccessDenied", "tmp/check: the access key may not put object in the bucket bucket"),
        (403, "RequestTimeTooSkewed", "tmp/check: the clocks of the engine and of this machine differ by too much"),
        (400, "AuthorizationHeaderMalformed", "tmp/check: the engine is of another region than us-east-1"),
        (418, "Teapot", "tmp/check: the engine answered Teapot to put object"),
    ],
)
def test_what_an_operator_can_mend_is_one_clear_line(status: int, code: str, message: str) -> None:
    with bad_engine(refusing(status, code)) as engine, pytest.raises(StorageError) as caught:
        S3Store(engine.settings()).check()
    assert str(caught.value) == message


@pytest.mark.parametrize(("status", "code"), [(507, "InsufficientStorage"), (403, "QuotaExceeded")])
def test_a_full_engine_is_a_full_store(status: int, code: str) -> None:
    with bad_engine(refusing(status, code)) as engine, pytest.raises(StorageFullError, match="no room left"):
        S3Store(engine.settings()).put(BLOB, [b"x"])


def test_an_engine_that_does_not_encrypt_as_told_is_refused() -> None:
    with bad_engine(badengine.accepting) as engine:
        store = S3Store(engine.settings(encryption="AES256"))
        with pytest.raises(StorageError, match="did not encrypt it: got none, want AES256"):
            store.check()


# ---- what uploads hold ---------------------------------------------------------------------------------------------


def test_a_blob_of_more_parts_than_the_engine_takes_is_refused() -> None:
    settings = {"part_size": 5 * 2**20, "max_parts": 1}
    created = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"

    def create(request: badengine.Request) -> None:
        request.head(200, Content_Length=len(created))
        request.wfile.write(created)

    with bad_engine(create, badengine.accepting) as engine:
        content = bytes(11 * 2**20)
        with pytest.raises(TooLargeError, match="got more than 1 parts of 5242880 bytes"):
            S3Store(engine.settings(**settings)).put(Digest.of(content), [content])


def test_uploads_beyond_the_memory_wait_and_are_refused() -> None:
    with bad_engine(badengine.accepting) as engine:
        settings = engine.settings(memory=8 * 2**20, deadline=1)
        bucket = Bucket(settings)
        with bucket.sender("one") as first:
            first.write(b"x")
            with bucket.sender("two") as second, at_most(1), pytest.raises(TooManyRequestsError, match="no room"):
                second.write(b"x")
            timer = threading.Timer(0.3, first.__exit__, (None, None, None))
            timer.start()
            with bucket.sender("three") as third:
                third.write(b"x")
            timer.join()
        with bucket.sender("four") as fourth:
            fourth.write(b"x")


def test_the_body_of_an_empty_object_is_empty() -> None:
    with bad_engine(whole) as engine, S3Store(engine.settings()).open(DIGEST, length=0) as stream:
        assert isinstance(stream, io.BytesIO)
        assert engine.asked == []
