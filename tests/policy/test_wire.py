"""Statements on the wire: each comes back, and nothing else is taken for one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from ocispec.digest import Digest
from policy import canonical, wire
from policy.errors import TrustError
from policy.keys import Algorithm
from policy.private_key import PrivateKey
from policy.statements import (
    AuditCheckpoint,
    Clearance,
    ConfigFacts,
    ImageApproval,
    IndexClearance,
    LayerApproval,
    ListDate,
    PolicyFloor,
    PolicyName,
    PolicyStatement,
    ResolvedUser,
    RevocationList,
    Role,
    Statement,
    TagStatement,
    TrustedKey,
    TrustRoot,
    Waiver,
    Withdrawal,
)
from policy.times import whole_seconds
from policy.wire.clearance import CLEARANCE, EXTENSION
from policy.wire.frame import KINDS
from scanner.model import DataSource
from tests.support.trust import NOW, REGISTRY, image_approval, image_facts, keyring, policy_statement, scene, waiver

DIGESTS = st.binary(min_size=4, max_size=4).map(Digest.of)
SHA512 = st.binary(min_size=4, max_size=4).map(lambda content: Digest.of(content, "sha512"))
ANY_DIGEST = DIGESTS | SHA512
TIMES = st.datetimes(timezones=st.just(UTC)).map(whole_seconds)
WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
LINES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cf"]), max_size=30)
FILLED = LINES.filter(lambda text: bool(text.strip()))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS = st.integers(0, 2**53 - 1)
POSITIVE = st.integers(1, 2**53 - 1)
REGISTRIES = st.sampled_from(["registry.example:5000", "localhost", "127.0.0.1:5000", "[::1]:5000"])
REPOSITORIES = st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}", fullmatch=True)
PLATFORMS = st.sampled_from(["linux/amd64", "linux/arm64/v8"])
GLOBS = st.sampled_from(["pkg:deb/debian/openssl@**", "pkg:pypi/*@1.0", "x"])
KEYS = [PrivateKey.generate(algorithm).public for algorithm in (*Algorithm, *Algorithm)]


def several(of: st.SearchStrategy[str], limit: int = 3) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(of, max_size=limit).map(tuple)


def digests(limit: int = 3) -> st.SearchStrategy[tuple[Digest, ...]]:
    return st.lists(ANY_DIGEST, max_size=limit).map(tuple)


FACTS = st.builds(
    ConfigFacts,
    user=TEXTS,
    env=several(TEXTS),
    entrypoint=several(TEXTS),
    cmd=several(TEXTS),
    working_dir=TEXTS,
    volumes=several(TEXTS),
    stop_signal=TEXTS,
)
USERS = st.builds(
    ResolvedUser,
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    groups=st.lists(st.integers(0, 2**32 - 2), max_size=3).map(tuple),
    home=TEXTS,
)
SOURCES = st.builds(DataSource, name=LINES, digest=LINES, date=LINES, records=NUMBERS, broken=NUMBERS)


@st.composite
def trust_roots(draw: st.DrawFn) -> TrustRoot:
    roles = (Role.ROOT, Role.OFFICER, Role.TEAM, Role.REGISTRY)
    begin = draw(TIMES.filter(lambda time: time.year < 9000))
    keys = tuple(
        TrustedKey(
            key=key,
            role=role,
            owner=REGISTRY if role is Role.REGISTRY else draw(FILLED).strip() or "x",
            levels=draw(several(WORDS)) if role in {Role.OFFICER, Role.TEAM} else (),
            not_before=begin,
            not_after=begin + timedelta(seconds=draw(st.integers(1, 10**9))),
        )
        for key, role in zip(KEYS, roles, strict=True)
    )
    names = draw(st.lists(WORDS, unique=True, max_size=3))
    return TrustRoot(
        version=draw(POSITIVE),
        root_threshold=1,
        list_threshold=1,
        keys=keys,
        policies=tuple(PolicyName(name=name, threshold=1) for name in names),
        registries=(REGISTRY,),
        issued=draw(TIMES),
        expires=draw(TIMES),
    )


STATEMENTS: dict[type[Statement], st.SearchStrategy[Statement]] = {
    TrustRoot: trust_roots(),
    ImageApproval: st.builds(
        ImageApproval,
        level=WORDS,
        manifest=ANY_DIGEST,
        config=ANY_DIGEST,
        config_facts=FACTS,
        diff_ids=digests(),
        root_index=ANY_DIGEST,
        reader=NUMBERS,
        format=NUMBERS,
        platform=PLATFORMS,
        issued=TIMES,
        expires=TIMES,
    ),
    LayerApproval: st.builds(
        LayerApproval, level=WORDS, diff_id=ANY_DIGEST, chain_id=st.none() | ANY_DIGEST, issued=TIMES, expires=TIMES
    ),
    Waiver: st.builds(
        Waiver,
        rule=FILLED.filter(lambda rule: rule != "*"),
        advisory=LINES,
        component=GLOBS | st.just(""),
        scope=GLOBS,
        owner=FILLED,
        reason=FILLED,
        ticket=LINES,
        issued=TIMES,
        expires=TIMES,
    ),
    Withdrawal: st.builds(Withdrawal, statement=ANY_DIGEST, reason=LINES, issued=TIMES),
    RevocationList: st.builds(
        RevocationList,
        number=POSITIVE,
        digests=digests(),
        layers=digests(),
        components=several(GLOBS),
        keys=several(DIGESTS.map(str)),
        reason=LINES,
        issued=TIMES,
    ),
    ListDate: st.builds(ListDate, list=ANY_DIGEST, number=POSITIVE, issued=TIMES, expires=TIMES),
    PolicyStatement: st.builds(PolicyStatement, name=WORDS, version=POSITIVE, document=st.binary(), issued=TIMES),
    PolicyFloor: st.builds(PolicyFloor, name=WORDS, version=POSITIVE, issued=TIMES),
    TagStatement: st.builds(
        TagStatement,
        registry=REGISTRIES,
        repository=REPOSITORIES,
        tag=st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True),
        digest=ANY_DIGEST,
        number=POSITIVE,
        issued=TIMES,
    ),
    IndexClearance: st.builds(
        IndexClearance,
        registry=REGISTRIES,
        repository=REPOSITORIES,
        index=ANY_DIGEST,
        children=digests(),
        issued=TIMES,
        expires=TIMES,
    ),
    AuditCheckpoint: st.builds(AuditCheckpoint, registry=REGISTRIES, records=NUMBERS, head=ANY_DIGEST, issued=TIMES),
    Clearance: st.builds(
        Clearance,
        registry=REGISTRIES,
        repository=REPOSITORIES,
        manifest=ANY_DIGEST,
        config=ANY_DIGEST,
        platform=PLATFORMS,
        level=WORDS,
        state=WORDS,
        diff_ids=digests(),
        chain_id=ANY_DIGEST,
        root_index=ANY_DIGEST,
        reader=NUMBERS,
        format=NUMBERS,
        user=USERS,
        config_facts=FACTS,
        policy_name=WORDS,
        policy_version=POSITIVE,
        policy_digest=DIGESTS,
        evidence=ANY_DIGEST,
        data=st.lists(SOURCES, max_size=2).map(tuple),
        components=several(TEXTS),
        policy=st.binary(max_size=20),
        approvals=st.lists(st.binary(max_size=20), max_size=2).map(tuple),
        waivers=st.lists(st.binary(max_size=20), max_size=2).map(tuple),
        issued=TIMES,
        expires=TIMES,
    ),
}


def test_every_kind_of_statement_has_a_strategy_here_and_a_predicate_type() -> None:
    assert set(STATEMENTS) == {kind.statement for kind in KINDS.values()}
    assert all(uri.startswith("urn:pratique:") for uri in KINDS if uri != CLEARANCE)


@pytest.mark.parametrize("kind", list(STATEMENTS), ids=lambda kind: kind.__name__)
def test_a_statement_comes_back(kind: type[Statement]) -> None:
    @settings(max_examples=30, deadline=None)
    @given(STATEMENTS[kind])
    def check(statement: Statement) -> None:
        payload = wire.encode(statement)
        assert wire.decode(payload, what="statement") == statement
        members = json.loads(payload)
        assert members["_type"] == "https://in-toto.io/Statement/v1"
        assert members["predicateType"] == wire.predicate_type(kind)
        assert len(members["subject"]) == 1
        assert members["subject"][0]["digest"]

    check()


@settings(max_examples=300, deadline=None)
@given(st.one_of(list(STATEMENTS.values())), st.data())
def test_a_changed_byte_is_refused_or_another_statement(statement: Statement, data: st.DataObject) -> None:
    payload = bytearray(wire.encode(statement))
    position = data.draw(st.integers(0, len(payload) - 1))
    payload[position] ^= data.draw(st.integers(1, 255))
    try:
        changed = wire.decode(bytes(payload), what="statement")
    except TrustError as error:
        assert error.subject == "statement"  # noqa: PT017 - either is right, but each in its own way
    else:
        assert changed != statement
        assert wire.encode(changed) == bytes(payload)


Change = Callable[[dict[str, object]], None]


def altered(payload: bytes, change: Change) -> bytes:
    members = json.loads(payload)
    change(members)
    return canonical.encode(members)


def predicate(members: dict[str, object]) -> dict[str, object]:
    found = members["predicate"]
    assert isinstance(found, dict)
    return found


APPROVAL = wire.encode(image_approval(image_facts()))


def refusal(payload: bytes) -> TrustError:
    with pytest.raises(TrustError) as refused:
        wire.decode(payload, what="statement")
    return refused.value


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.update({"_type": "https://in-toto.io/Statement/v0.1"}),
        lambda members: members.update({"extra": 1}),
        lambda members: members.pop("subject"),
        lambda members: members.update({"subject": []}),
        lambda members: members.update({"subject": members["subject"] * 2}),
        lambda members: members["subject"][0].update({"uri": "x"}),
        lambda members: members["subject"][0].update({"name": "other"}),
        lambda members: members["subject"][0].update({"digest": {"md5": "d41d8cd98f00b204e9800998ecf8427e"}}),
        lambda members: members["subject"][0]["digest"].update({"sha1": "x"}),
        lambda members: members.update({"predicate": []}),
        lambda members: members["predicate"].update({"extra": 1}),
        lambda members: members["predicate"]["configFacts"].update({"extra": 1}),
        lambda members: members["predicate"].pop("level"),
        lambda members: members["predicate"].update({"level": ""}),
        lambda members: members["predicate"].update({"level": "a b"}),
        lambda members: members["predicate"].update({"level": 1}),
        lambda members: members["predicate"].update({"format": -1}),
        lambda members: members["predicate"].update({"format": True}),
        lambda members: members["predicate"].update({"issued": "2026-11-24T08:00:00+00:00"}),
        lambda members: members["predicate"].update({"config": "sha256:00"}),
        lambda members: members["predicate"].update({"platform": "linux"}),
        lambda members: members["predicate"]["configFacts"].update({"user": "a\0b"}),
        lambda members: members["predicate"]["configFacts"].update({"env": "PATH=/"}),
        lambda members: members["predicate"]["configFacts"].update({"user": "x" * 5000}),
        lambda members: members["predicate"].update({"diffIds": ["sha256:" + "0" * 64] * 513}),
    ],
)
def test_what_is_not_exactly_a_statement_is_refused(change: Change) -> None:
    payload = altered(APPROVAL, change)
    assert payload != APPROVAL
    assert refusal(payload).code in {"malformed", "not-canonical"}


def test_an_unknown_predicate_type_is_refused() -> None:
    error = refusal(
        altered(APPROVAL, lambda members: members.update({"predicateType": "urn:pratique:image-approval:v2"}))
    )
    assert error.code == "unknown-type"
    assert "image-approval:v2" in error.detail


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        APPROVAL[:-1],
        APPROVAL.replace(b'"format":1', b'"format":9223372036854775808'),
        APPROVAL.replace(b'"format":1', b'"format":1.0'),
        APPROVAL.replace(b'"format":1', b'"format":1,"format":1'),
        APPROVAL.replace(b'"format":1', b'"format":NaN'),
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused_r11_s12(payload: bytes) -> None:
    assert refusal(payload).code == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        APPROVAL + b"\n",
        APPROVAL.replace(b'"format":1', b'"format": 1'),
        APPROVAL.replace(b"application", b"applic\\u0061tion"),
        json.dumps(dict(reversed(json.loads(APPROVAL).items())), separators=(",", ":")).encode(),
    ],
)
def test_a_statement_has_one_spelling(payload: bytes) -> None:
    assert refusal(payload).code == "not-canonical"


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "*", "advisory": "", "component": ""},
        {"rule": " "},
        {"scope": ""},
        {"owner": ""},
        {"reason": "\t"},
        {"reason": "hidden\u202etext"},
        {"component": "a***"},
        {"scope": "x" * 600},
    ],
)
def test_a_waiver_that_is_no_exception_is_neither_signed_nor_read(changes: dict[str, str]) -> None:
    with pytest.raises(TrustError) as refused:
        wire.encode(replace(waiver(), **changes))  # type: ignore[arg-type]  # the values are of the fields' type
    assert refused.value.code == "malformed"


def test_a_waiver_of_one_advisory_under_every_rule_is_an_exception() -> None:
    wire.encode(replace(waiver(), rule="*", component=""))


def test_a_policy_whose_document_is_not_its_subject_is_refused() -> None:
    payload = wire.encode(policy_statement())
    other = base64.b64encode(b"name: default\nallow: everything\n").decode()
    error = refusal(altered(payload, lambda members: predicate(members).update({"document": other})))
    assert error.code == "malformed"
    assert "document mismatch" in error.detail


def test_base64_in_a_statement_is_strict() -> None:
    payload = wire.encode(policy_statement())
    error = refusal(altered(payload, lambda members: predicate(members).update({"document": "A"})))
    assert error.code == "malformed"


def test_what_nobody_would_read_is_not_signed() -> None:
    for bad in (
        replace(image_approval(image_facts()), level="no spaces here"),
        replace(image_approval(image_facts()), issued=NOW + timedelta(microseconds=1)),
        replace(image_approval(image_facts()), platform="linux"),
        replace(policy_statement(), version=2**53),
        replace(image_approval(image_facts()), diff_ids=list(image_approval(image_facts()).diff_ids)),  # type: ignore[arg-type]  # reads back as a tuple
    ):
        with pytest.raises(TrustError) as refused:
            wire.encode(bad)
        assert refused.value.code == "malformed"


def root_change(change: Change) -> TrustError:
    return refusal(altered(wire.encode(keyring().root), change))


def keys_of(members: dict[str, object]) -> list[dict[str, object]]:
    keys = predicate(members)["keys"]
    assert isinstance(keys, list)
    return keys


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda members: keys_of(members).append(keys_of(members)[0]), "twice"),
        (lambda members: predicate(members).update({"registries": [REGISTRY, REGISTRY]}), "twice"),
        (lambda members: predicate(members)["policies"].append({"name": "default", "threshold": 1}), "twice"),  # type: ignore[attr-defined]  # a list
        (lambda members: predicate(members).update({"registries": ["other.example"]}), "not one of registries"),
        (lambda members: predicate(members).update({"rootThreshold": 4}), "rootThreshold is 4"),
        (lambda members: predicate(members).update({"rootThreshold": 0}), "at least 1"),
        (lambda members: predicate(members).update({"listThreshold": 4}), "threshold is 4"),
        (lambda members: keys_of(members)[0].update({"algorithm": "rsa"}), "not known"),
        (lambda members: keys_of(members)[0].update({"algorithm": "ecdsa-p256-sha256"}), "not the DER"),
        (lambda members: keys_of(members)[0].update({"role": "admin"}), "not known"),
        (lambda members: keys_of(members)[0].update({"id": keys_of(members)[1]["id"]}), "expected 'sha256:"),
        (lambda members: keys_of(members)[0].update({"owner": " rita"}), "padded"),
        (lambda members: keys_of(members)[0].update({"owner": ""}), "empty"),
        (lambda members: keys_of(members)[0].update({"levels": ["base"]}), "no levels"),
        (lambda members: keys_of(members)[0].update({"notAfter": "2020-01-01T00:00:00Z"}), "not later"),
        (lambda members: keys_of(members)[0].update({"spki": "AAAA"}), "not the DER"),
        (lambda members: keys_of(members)[0].update({"extra": 1}), "unknown member"),
    ],
)
def test_a_trust_json_that_contradicts_itself_is_refused(change: Change, says: str) -> None:
    error = root_change(change)
    assert error.code in {"malformed", "bad-key"}
    assert says in error.detail


CLEARED = scene()
CLEARED_PAYLOAD = wire.encode(CLEARED.clearance)


def test_a_clearance_is_a_verification_summary_that_other_tools_read() -> None:
    members = json.loads(CLEARED_PAYLOAD)
    body = members["predicate"]
    assert members["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert members["subject"] == [
        {"name": f"{REGISTRY}/team/app", "digest": {"sha256": CLEARED.image.manifest.hex}},
    ]
    assert body["verificationResult"] == "PASSED"
    assert body["verifiedLevels"] == ["PRATIQUE_LEVEL_application"]
    assert body["verifier"] == {"id": f"urn:pratique:registry:{REGISTRY}"}
    assert body["timeVerified"] == "2026-11-24T07:00:00Z"
    assert body["policy"]["digest"] == {"sha256": CLEARED.clearance.policy_digest.hex}
    assert len(body["inputAttestations"]) == 4
    assert set(body) == {
        "inputAttestations",
        "policy",
        "resourceUri",
        "timeVerified",
        "verificationResult",
        "verifiedLevels",
        "verifier",
        EXTENSION,
    }


def test_the_resource_uri_is_a_purl() -> None:
    purl = PackageURL.from_string(json.loads(CLEARED_PAYLOAD)["predicate"]["resourceUri"])
    assert (purl.type, purl.name, purl.version) == ("oci", "app", str(CLEARED.image.manifest))
    assert purl.qualifiers == {"repository_url": f"{REGISTRY}/team/app"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda body: body.update({"verificationResult": "FAILED"}), "malformed"),
        (lambda body: body.update({"verifiedLevels": ["PRATIQUE_LEVEL_base"]}), "not-canonical"),
        (lambda body: body.update({"resourceUri": "pkg:oci/other@sha256:00"}), "not-canonical"),
        (lambda body: body.update({"verifier": {"id": "urn:pratique:registry:other"}}), "not-canonical"),
        (lambda body: body.update({"inputAttestations": []}), "not-canonical"),
        (lambda body: body["policy"].update({"uri": "urn:pratique:policy:other:3"}), "not-canonical"),
        (lambda body: body["policy"]["digest"].update({"sha512": "00"}), "malformed"),
        (lambda body: body.pop("resourceUri"), "malformed"),
        (lambda body: body.update({"slsaVersion": "1.0"}), "malformed"),
        (lambda body: body[EXTENSION].update({"note": "x"}), "malformed"),
        (lambda body: body[EXTENSION]["user"].update({"uid": 2**32 - 1}), "malformed"),
        (lambda body: body[EXTENSION]["user"].update({"uid": "0"}), "malformed"),
        (lambda body: body[EXTENSION]["user"].update({"groups": [-1]}), "malformed"),
        (lambda body: body[EXTENSION].update({"registry": "https://registry.example"}), "malformed"),
        (lambda body: body[EXTENSION].update({"registry": "registry.example:5000/x"}), "malformed"),
        (lambda body: body[EXTENSION].update({"repository": "Team/App"}), "malformed"),
    ],
)
def test_a_clearance_that_says_two_things_is_refused_s1(change: Change, code: str) -> None:
    assert refusal(altered(CLEARED_PAYLOAD, lambda members: change(predicate(members)))).code == code
