"""The client of a registry's own API (`/api/v1`, docs/registry.md), as the account that `pratique login` remembers.

Statements come as bytes that nothing has proven; texts are what the registry says, and are cleaned where they are
printed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import quote, urlencode

from ocispec import fields
from ocispec.access import Access, ClientCertificate, Credentials
from ocispec.challenge import basic
from ocispec.errors import MissingError, SpecError
from ocispec.fields import JsonObject
from ocispec.strictjson import JsonValue, parse_object
from pratique import accounts
from pratique.exits import CommandError

if TYPE_CHECKING:
    from ocispec.config import ImageConfig
    from ocispec.digest import Digest
    from ocispec.reference import Reference
    from ocispec.remote import Remote

API: Final = "/api/v1"
MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of one answer: evidence and reports are the largest."""

PAGE: Final = 500
"""Audit records asked for at once."""


_opened: Final = ExitStack()
"""The connections of this verb, closed at its end."""


def close_all() -> None:
    """Close every connection that `connect` made."""
    _opened.close()


def access_of(account: accounts.Account) -> Access:
    """How the registry of a remembered account is reached."""
    shown = None
    if account.certificate and account.certificate_key:
        shown = ClientCertificate(chain=Path(account.certificate), key=Path(account.certificate_key))
    return Access(
        credentials=Credentials(name=account.name, secret=account.secret) if account.secret else None,
        client_certificate=shown,
        ca_file=Path(account.ca) if account.ca else None,
        plain_http=account.plain_http,
    )


def connect(registry: str, account: str | None = None) -> Remote:
    """The client of `registry` with the remembered account (`account`, or the last one); without any, anonymous TLS.

    Raises:
        CommandError: `account` is not remembered for it.
        SpecError: not a registry's name.
    """
    found = accounts.find(registry, account)
    if found is None and account is not None:
        hint = f"`pratique login {registry} --account {account}`"
        raise CommandError(f"registry {registry}: no account {account!r} is remembered; {hint}")
    return _remote(registry, found)


def _remote(registry: str, account: accounts.Account | None) -> Remote:
    from ocispec.remote import Remote

    return _opened.enter_context(Remote(registry, access_of(account) if account is not None else None))


def control(registry: str, account: str | None = None) -> Control:
    """The client of the API of `registry`.

    Raises:
        CommandError: no account is remembered for it: nothing of this API is for strangers.
    """
    found = accounts.find(registry, account)
    if found is None:
        who = account or "NAME"
        raise CommandError(
            f"registry {registry}: no account is remembered; `pratique login {registry} --account {who}`"
        )
    return Control(remote=_remote(registry, found), credentials=access_of(found).credentials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One registry's API. Every method raises SpecError (RemoteError for what the registry refuses).

    `credentials` are for what must be asked with the secret itself, not with a token that it was exchanged for.
    """

    remote: Remote
    credentials: Credentials | None = None

    # ---- documents --------------------------------------------------------------------------------------------

    def get(self, path: str, **query: str | int) -> dict[str, JsonValue]:
        """The JSON object at `/api/v1` + `path`; a query member that is empty is left out."""
        raw = self.raw(path, **query)
        return parse_object(raw, what=f"{self.remote.registry}: {path}", max_bytes=MAX_ANSWER)

    def raw(self, path: str, **query: str | int) -> bytes:
        """The bytes at `/api/v1` + `path`."""
        chosen = {name: value for name, value in query.items() if value != ""}
        target = f"{API}{path}" + (f"?{urlencode(chosen)}" if chosen else "")
        return self.remote.get_document(target, limit=MAX_ANSWER)

    def send(self, method: str, path: str, members: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Send a JSON object; the answer's object, empty where there is none."""
        return self.send_bytes(method, path, json.dumps(members).encode())

    def send_bytes(self, method: str, path: str, body: bytes) -> dict[str, JsonValue]:
        """Send a JSON document as it is."""
        raw = self.remote.send_document(method, f"{API}{path}", body, content_type="application/json", limit=MAX_ANSWER)
        return parse_object(raw, what=f"{self.remote.registry}: {method} {path}", max_bytes=MAX_ANSWER) if raw else {}

    def send_by_secret(self, path: str, members: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """POST a JSON object as `send` does, with the account's name and secret, if it has one."""
        if self.credentials is None:
            return self.send("POST", path, members)
        headers = {"Content-Type": "application/json", "Authorization": basic(self.credentials)}
        body = json.dumps(members).encode()
        response = self.remote.transport.request("POST", f"{API}{path}", scope="", headers=headers, body=body)
        what = f"{self.remote.registry}: POST {path}"
        raw = response.read_all(limit=MAX_ANSWER, what=what)
        if not 200 <= response.status < 300:
            raise SpecError(f"{what}: answered {response.status}: {raw[:400].decode('utf-8', 'backslashreplace')}")
        return parse_object(raw, what=what)

    # ---- statements -------------------------------------------------------------------------------------------

    def post_statement(self, envelope: bytes) -> dict[str, JsonValue]:
        """Hand in a signed statement."""
        return self.send_bytes("POST", "/statements", envelope)

    def trust(self) -> bytes | None:
        """The registry's trust.json, or None before it has one."""
        return self._optional("/trust")

    def policy(self) -> bytes | None:
        """The envelope of the policy in force, or None before there is one."""
        return self._optional("/policy")

    def revocations(self) -> tuple[bytes, bytes | None] | None:
        """The envelopes of the revocation list and of its date, or None before there is a list."""
        members = self._optional_members("/revocations")
        if members is None or members.get("list") is None:
            return None
        date = members.get("date")
        return _envelope(members["list"]), _envelope(date) if date is not None else None

    def concerning(self, config: ImageConfig) -> tuple[bytes, ...]:
        """The statements that may count for an image of this config."""
        query = [("config", str(config.digest)), *(("diff_id", str(diff_id)) for diff_id in config.diff_ids)]
        members = self.get(f"/statements?{urlencode(query)}")
        what = f"{self.remote.registry}: statements"
        return tuple(_envelope(item) for item in fields.items(members, "statements", what=what, limit=10_000))

    def _optional(self, path: str) -> bytes | None:
        members = self._optional_members(path)
        return _envelope(members) if members else None

    def _optional_members(self, path: str) -> dict[str, JsonValue] | None:
        try:
            return self.get(path)
        except MissingError:
            return None

    # ---- images -----------------------------------------------------------------------------------------------

    def images(self, *, state: str = "", repository: str = "") -> Iterator[JsonObject]:
        """The registry's images, page by page."""
        page = ""
        while True:
            members = self.get("/images", state=state, repository=repository, page=page)
            what = f"{self.remote.registry}: images"
            for item in fields.items(members, "images", what=what, limit=100_000):
                if not isinstance(item, dict):
                    raise SpecError(f"{what}: expected objects")
                yield item
            following = fields.text(members, "next", what=what, default="")
            if not following or following == page:
                return
            page = following

    def image(self, repository: str, digest: Digest) -> dict[str, JsonValue]:
        """What the registry says of an image."""
        return self.get(f"/images/{digest}/{quote(repository)}")

    def status(self, reference: Reference, *, wait: int = 0) -> dict[str, JsonValue]:
        """State, first reason and explanation of an image, after at most `wait` seconds (the registry waits 30)."""
        return self.get(f"/status/{quote(reference.repository)}", reference=reference.target, wait=wait or "")

    # ---- audit ------------------------------------------------------------------------------------------------

    def audit(self, after: int) -> tuple[list[JsonObject], list[bytes]]:
        """Records with a number above `after`, PAGE at most, and the signed checkpoints over the chain."""
        members = self.get("/audit", after=after, limit=PAGE)
        what = f"{self.remote.registry}: audit"
        records: list[JsonObject] = []
        for item in fields.items(members, "records", what=what, limit=10 * PAGE):
            if not isinstance(item, dict):
                raise SpecError(f"{what}: expected objects")
            records.append(item)
        checkpoints = fields.items(members, "checkpoints", what=what, limit=100_000)
        return records, [_envelope(item) for item in checkpoints]

    # ---- advisories -------------------------------------------------------------------------------------------

    def advisories(self) -> dict[str, JsonValue]:
        """Names, dates, counts and digests of the registry's advisory data."""
        return self.get("/advisories")

    def upload_advisories(
        self, file: BinaryIO, size: int, *, kind: str, name: str, older: bool
    ) -> dict[str, JsonValue]:
        """Upload one source or snapshot of advisory data."""
        # A file cannot be sent twice, so the challenge is answered by a request that costs nothing.
        self.advisories()
        target = f"{API}/advisories?{urlencode({'kind': kind, 'name': name} | ({'older': 'true'} if older else {}))}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        response = self.remote.transport.request("POST", target, scope="", headers=headers, body=file)
        what = f"{self.remote.registry}: advisories {name}"
        raw = response.read_all(limit=MAX_ANSWER, what=what)
        if not 200 <= response.status < 300:
            raise SpecError(f"{what}: answered {response.status}: {raw[:400].decode('utf-8', 'backslashreplace')}")
        return parse_object(raw, what=what) if raw else {}


def _envelope(value: JsonValue) -> bytes:
    # The payload is base64, so writing the envelope again changes nothing that is signed.
    if not isinstance(value, dict):
        raise SpecError("envelope: expected an object")
    return json.dumps(value, separators=(",", ":")).encode()


def text_of(members: JsonObject, *names: str) -> str:
    """The first of these members that is there, as text for people; "" if there is none."""
    for name in names:
        value = members.get(name)
        if value is not None and not isinstance(value, dict | list):
            return str(value)
    return ""


def rows_of(members: JsonObject, name: str) -> Sequence[JsonObject]:
    """The objects in the array `name`; what is none is left out."""
    value = members.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
