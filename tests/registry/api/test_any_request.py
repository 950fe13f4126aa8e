"""Whatever is asked, the answer is never that the registry failed, and errors have the specification's form."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from tests.support.images import image
from tests.support.registry import LiveRegistry

BUILT = image()
ODD = st.text(alphabet=st.characters(codec="utf-8"), max_size=12)
NAMES = st.sampled_from(["fuzz/app", "a", "../a", "A", "", "a/blobs", "uploads", "a/blobs/uploads/x", "_catalog"]) | ODD
REFERENCES = (
    st.sampled_from(["latest", str(BUILT.digest), str(BUILT.config.digest), "sha256:", "sha512:ab", "a" * 32, "list"])
    | st.just(f"sha256-{BUILT.digest.hex}.sig")
    | ODD
)
KINDS = st.sampled_from(["manifests", "blobs", "blobs/uploads", "tags", "referrers", "nothing"])
NUMBERS = st.sampled_from(["0", "1", "-1", "1e3", "99999999999", "", "x", "٣", "0x1"])
QUERIES = st.dictionaries(
    st.sampled_from(["n", "last", "digest", "mount", "from", "artifactType", "tag", "digest-algorithm"]),
    NUMBERS | REFERENCES | NAMES,
    max_size=3,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Range",
            "If_Range",
            "Content_Range",
            "Content_Type",
            "Content_Encoding",
            "Accept",
            "If_Match",
            "If_None_Match",
            "Authorization",
        ]
    ),
    st.sampled_from(
        ["bytes=0-1", "bytes=-5", "0-1", "5-1", "bytes=99999999999999999999-", "application/json", "*/*", ""]
    )
    | st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.strip),
    max_size=3,
)
BODIES = st.none() | st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", BUILT.manifest.raw])
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


@pytest.fixture(scope="module", autouse=True)
def pushed(live: LiveRegistry) -> None:
    """Something to hit."""
    live.push("fuzz/app", BUILT)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=METHODS,
    path=st.tuples(NAMES, KINDS, REFERENCES),
    query=QUERIES,
    headers=HEADERS,
    body=BODIES,
    account=st.sampled_from([None, "pusher", "host", "scanner", "admin"]),
)
def test_no_request_makes_the_registry_fail(
    live: LiveRegistry,
    method: str,
    path: tuple[str, str, str],
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes | None,
    account: str | None,
) -> None:
    name, kind, reference = path
    asked = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    target = f"/v2/{quote(name, safe='/')}/{kind}/{quote(reference, safe=':')}?{asked}"
    answer = live.request(method, target, account=account, body=body, **headers)
    assert answer.status < 500, (method, target, headers, body, answer)
    if answer.status >= 400 and method != "HEAD":
        for error in json.loads(answer.body)["errors"]:
            assert error["code"] == error["code"].upper()
            assert error["message"]


def test_what_was_pushed_before_is_still_what_it_was(live: LiveRegistry) -> None:
    got = live.request("GET", f"/v2/fuzz/app/manifests/{BUILT.digest}")
    assert got.status in {200, 404}
    assert got.status == 404 or Digest.of(got.body) == BUILT.digest
