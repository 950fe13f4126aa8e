"""Evidence and Decision as canonical JSON (RFC 8785), and back.

Values are objects of their members' names; a member that has its default is left out, so that a new member with a
default changes no digest of an older value. Reading is strict: an unknown, missing or mistyped member is an error,
and so is any other spelling of the same value.

Signed statements travel as their DSSE envelopes only: whoever decodes verifies them again, so a signer never
believes a typed value that it did not prove itself.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse, type_name
from policy.errors import PolicyError, TrustError
from policy.model import Decision, Evidence, Signed, StartEvidence
from policy.statements import Statement
from policy.times import format_time, parse_time

T = TypeVar("T")
Verify = Callable[[bytes], Signed[Statement]]
"""Proves one DSSE envelope against trust.json as of a fixed time (`Trust.verifier`); raises TrustError."""

MAX_ENCODED: Final = 64 * 1024 * 1024
"""Bytes of an encoded Evidence or Decision that are read."""

_Writer = Callable[[Any], JsonValue]


def encode_evidence(evidence: Evidence) -> bytes:
    """The canonical JSON of `evidence`; its sha256 is the evidence's digest in a Decision.

    Raises:
        PolicyError: a time is not in whole seconds of UTC, or a text is not Unicode.
    """
    return _canonical(evidence)


def evidence_digest(evidence: Evidence | StartEvidence) -> Digest:
    """The digest by which a Decision names its evidence."""
    return Digest.of(_canonical(evidence))


def decode_evidence(raw: bytes, verify: Verify) -> Evidence:
    """Return the evidence in `raw`, each envelope verified again by `verify`.

    Raises:
        PolicyError: malformed, of unknown members, or not in canonical form.
        TrustError: an envelope is not believed, or holds another kind of statement than its place says.
    """
    return _decode(raw, Evidence, "evidence", verify)


def encode_start_evidence(evidence: StartEvidence) -> bytes:
    """The canonical JSON of `evidence`."""
    return _canonical(evidence)


def decode_start_evidence(raw: bytes, verify: Verify) -> StartEvidence:
    """Return the start evidence in `raw`, each envelope verified again by `verify`.

    Raises:
        PolicyError, TrustError: as `decode_evidence`.
    """
    return _decode(raw, StartEvidence, "start evidence", verify)


def encode_decision(decision: Decision) -> bytes:
    """The canonical JSON of `decision`."""
    return _canonical(decision)


def decode_decision(raw: bytes) -> Decision:
    """Return the Decision in `raw`.

    Raises:
        PolicyError: malformed, or not in canonical form.
    """
    return _decode(raw, Decision, "decision", _no_statements)


def _no_statements(_envelope: bytes) -> Signed[Statement]:
    raise PolicyError("decision: holds a signed statement, expected none")


def to_json(value: object) -> JsonValue:
    """The JSON form of a value of this package's or the scanner's dataclasses."""
    return _writer(type(value))(value)


def _canonical(value: object) -> bytes:
    """RFC 8785. Our names are ASCII and our numbers whole, so sorting by code point and json's escapes are its own."""
    text = json.dumps(
        to_json(value), sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
    )
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 40) : error.start]
        raise PolicyError(f"canonical JSON: a lone surrogate after {near!r}") from None


def _decode(raw: bytes, kind: type[T], what: str, verify: Verify) -> T:
    try:
        value = parse(raw, what=what, max_bytes=MAX_ENCODED)
    except SpecError as error:
        raise PolicyError(str(error)) from error
    found = cast(T, _read(kind, value, what, verify))
    if _canonical(found) != raw:
        raise PolicyError(f"{what}: not in canonical form")
    return found


# Writing: one function for each class, made once.


_WRITERS: Final[dict[type, _Writer]] = {}


def _writer(kind: type) -> _Writer:
    if kind not in _WRITERS:
        _WRITERS[kind] = _make_writer(kind)
    return _WRITERS[kind]


def _make_writer(kind: type) -> _Writer:
    if issubclass(kind, datetime):
        return format_time
    if issubclass(kind, bool | int | NoneType):
        return lambda value: cast(JsonValue, value)
    if issubclass(kind, str | Digest):
        return str
    if issubclass(kind, bytes):
        return lambda value: base64.b64encode(value).decode("ascii")
    if issubclass(kind, tuple):
        return lambda value: [_writer(type(item))(item) for item in value]
    if issubclass(kind, Signed):
        return lambda value: {"digest": str(value.digest), "envelope": base64.b64encode(value.envelope).decode("ascii")}
    if is_dataclass(kind):
        return _object_writer(kind)
    raise TypeError(f"{kind.__name__} has no canonical JSON form")


def _object_writer(kind: type) -> _Writer:
    plan = tuple((field.name, field.default) for field in fields(kind))

    def write(value: object) -> JsonValue:
        members: dict[str, JsonValue] = {}
        for name, default in plan:
            member = getattr(value, name)
            if default is MISSING or member != default:
                members[name] = member if type(member) is str else _writer(type(member))(member)
        return members

    return write


# Reading: by the types that the dataclasses declare.


_MEMBERS: Final[dict[type, tuple[tuple[str, object, bool], ...]]] = {}


def _members(kind: type) -> tuple[tuple[str, object, bool], ...]:
    """Name, declared type, and whether there is no default."""
    if kind not in _MEMBERS:
        hints = get_type_hints(kind)
        _MEMBERS[kind] = tuple((field.name, hints[field.name], field.default is MISSING) for field in fields(kind))
    return _MEMBERS[kind]


def _read(kind: object, value: JsonValue, what: str, verify: Verify) -> object:
    origin = get_origin(kind)
    if origin is Signed:
        return _read_signed(cast(type, get_args(kind)[0]), value, what, verify)
    if origin is tuple:
        return _read_items(get_args(kind), value, what, verify)
    if origin in (UnionType, Union):
        if value is None:
            return None
        return _read(next(option for option in get_args(kind) if option is not NoneType), value, what, verify)
    if isinstance(kind, type) and is_dataclass(kind) and kind is not Digest:
        return _read_object(kind, value, what, verify)
    return _read_scalar(kind, value, what)


def _read_scalar(kind: object, value: JsonValue, what: str) -> object:
    if kind in (str, int, bool) and type(value) is kind:
        return value
    if isinstance(value, str) and isinstance(kind, type):
        if issubclass(kind, datetime):
            return parse_time(value, what=what)
        if issubclass(kind, Digest):
            try:
                return Digest.parse(value)
            except SpecError as error:
                raise PolicyError(f"{what}: {error}") from None
        if issubclass(kind, StrEnum) and value in {str(word) for word in kind}:
            return kind(value)
        if issubclass(kind, bytes):
            return _bytes(value, what)
    raise PolicyError(f"{what}: got {type_name(value)}, expected {getattr(kind, '__name__', kind)}")


def _read_items(kinds: tuple[object, ...], value: JsonValue, what: str, verify: Verify) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise PolicyError(f"{what}: got {type_name(value)}, expected an array")
    return tuple(_read(kinds[0], item, f"{what}[{index}]", verify) for index, item in enumerate(value))


def _read_object(kind: type, value: JsonValue, what: str, verify: Verify) -> object:
    if not isinstance(value, dict):
        raise PolicyError(f"{what}: got {type_name(value)}, expected an object")
    members = _members(kind)
    unknown = value.keys() - {name for name, _, _ in members}
    if unknown:
        raise PolicyError(f"{what}: unknown member {min(unknown)[:80]!r}")
    found: dict[str, object] = {}
    for name, member_kind, required in members:
        if name in value:
            found[name] = _read(member_kind, value[name], f"{what}.{name}", verify)
        elif required:
            raise PolicyError(f"{what}.{name}: missing")
    return kind(**found)


def _read_signed(kind: type, value: JsonValue, what: str, verify: Verify) -> Signed[Statement]:
    if not isinstance(value, dict) or value.keys() != {"digest", "envelope"}:
        raise PolicyError(f"{what}: expected an object of digest and envelope")
    digest, envelope = value["digest"], value["envelope"]
    if not isinstance(digest, str) or not isinstance(envelope, str):
        raise PolicyError(f"{what}: expected digest and envelope as strings")
    signed = verify(_bytes(envelope, what))
    if not isinstance(signed.statement, kind):
        found = type(signed.statement).__name__
        raise TrustError("wrong-type", f"statement {signed.digest}", f"a {found} in the place of a {kind.__name__}")
    if str(signed.digest) != digest:
        raise TrustError("wrong-digest", f"statement {signed.digest}", f"stands under the digest {digest[:160]}")
    return signed


def _bytes(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PolicyError(f"{what}: not base64") from None
