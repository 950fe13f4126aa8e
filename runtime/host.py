"""What this host believes, and how it learns more: trust.json, revocation list, memory, and its registries.

    <store>/host/trust.json                as signed by the roots
    <store>/host/state                     the host's memory (policy.hoststate), replaced whole
    <store>/host/list, <store>/host/date   the revocation list and its date
    <store>/host/registries/<name>         account, secret and certificate authority, 0600
    <store>/host/settings                  what its operator chose (runtime.settings)
    <store>/host/lock                      held while any of it changes
    <store>/host/synced                    when the registries were last asked

`sync` takes what is newer and proven; what is older, jumps or is not signed by who may is refused, and what was
there stays. Each document is written before the memory that it was seen: a host that dies in between believes
the newer one and forgets nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from ocispec import fields
from ocispec.access import Access, ClientCertificate, Credentials
from ocispec.erofs import FORMAT_VERSION
from ocispec.errors import SourceError, SpecError
from ocispec.layer import READER_VERSION
from ocispec.reference import check_registry
from ocispec.remote import Remote
from ocispec.strictjson import parse_object
from policy import hoststate
from policy.clearance import HostView
from policy.dsse import MAX_ENVELOPE
from policy.errors import TrustError
from policy.hoststate import HostState
from policy.refusal import Refused
from policy.revocation import CurrentList, verify_list
from policy.statements import PolicyFloor
from policy.times import format_time, parse_time, whole_seconds
from policy.trust import Trust, check_number
from runtime.api import Statements
from runtime.errors import HostError
from runtime.ownfiles import read_owned, replace_file, stamp
from runtime.settings import HostSettings, read_settings, write_settings
from runtime.store import Store

FORMATS: Final = frozenset({(READER_VERSION, FORMAT_VERSION)})
"""(reader, format) of the root indexes that this host can write."""

MAX_STATE: Final = 4 * 1024 * 1024
MAX_REGISTRY: Final = 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAccount:
    """One registry that this host pulls from; `ca` is PEM text, or "" for the system's authorities.

    `certificate` are files that stay where they are: whoever renews the host's certificate writes them anew.
    """

    registry: str
    credentials: Credentials | None = None
    certificate: ClientCertificate | None = None
    ca: str = ""
    plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """What came of asking: what is new, what was offered and refused, and which registries did not answer."""

    news: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def fine(self) -> bool:
        """True if every registry answered and nothing was refused."""
        return not self.refused and not self.silent


@dataclass(frozen=True, slots=True)
class Host:
    """This host, by its store."""

    store: Store

    # Enrolment

    @classmethod
    def enrol(cls, store: Store, trust: bytes, account: RegistryAccount, now: datetime) -> Host:
        """Make this host believe `trust` and know the registry. The caller has compared the digest of `trust`.

        On a host that is enrolled already `trust` must be the same, or follow it as an update does.

        Raises:
            TrustError: trust.json is refused, or does not list the registry (`unknown-registry`).
        """
        host = cls(store)
        with contextlib.suppress(FileExistsError):
            (store.host / "registries").mkdir(mode=0o700)
        with host._changing():
            state = host.state()
            stored = host._read("trust.json", MAX_ENVELOPE)
            new = Trust.parse(trust, now) if stored is None else Trust.stored(stored, now).update(trust, now)
            if account.registry not in new.root.registries:
                listed = ", ".join(new.root.registries) or "none"
                detail = f"trust.json lists {listed}"
                raise TrustError("unknown-registry", f"registry {account.registry}", detail)
            state = hoststate.see_trust(state, new, now)
            host._write("trust.json", trust)
            host._write("state", hoststate.encode(state))
            host._write_account(account)
        return host

    @classmethod
    def open(cls, store: Store) -> Host:
        """The host that was enrolled in this store.

        Raises:
            HostError: none was.
        """
        host = cls(store)
        if not (store.host / "trust.json").exists():
            raise HostError(f"host: {store.path} holds no trust.json: this host is not enrolled")
        return host

    # What its operator chose

    def settings(self) -> HostSettings:
        """The settings of this host.

        Raises:
            StoreError: they are damaged.
        """
        return read_settings(self.store.host / "settings")

    def set(self, settings: HostSettings) -> None:
        """Keep the settings for every start from now on.

        Raises:
            StoreError: e.g. the disk is full.
        """
        write_settings(self.store.host / "settings", settings)

    # What is believed

    def trust(self, now: datetime) -> Trust:
        """The stored trust.json; one that has expired can be followed by a newer one, and proves nothing.

        Raises:
            TrustError: it is not signed by its roots, or is another one than the host has seen.
        """
        trust = Trust.stored(self._required("trust.json", MAX_ENVELOPE), now)
        seen = self.state().trust
        if seen is None:
            raise TrustError("host-state", "host state", "no trust.json was seen, and one is there")
        check_number("trust.json", (seen.number, seen.digest), (trust.root.version, trust.digest))
        return trust

    def state(self) -> HostState:
        """The host's memory; a fresh host's is empty.

        Raises:
            TrustError: `host-state`: damaged, or lost while trust.json is there.
        """
        raw = self._read("state", MAX_STATE)
        if raw is None:
            if (self.store.host / "trust.json").exists():
                raise TrustError("host-state", "host state", "it is missing, and this host is enrolled")
            return HostState()
        return hoststate.decode(raw)

    def revocations(self, trust: Trust, now: datetime) -> CurrentList | None:
        """The stored revocation list with its date, proven again; None before the first.

        Raises:
            TrustError: it is not signed by who may, or has ended, grace included.
        """
        listed, date = self._read("list", MAX_ENVELOPE), self._read("date", MAX_ENVELOPE)
        return None if listed is None or date is None else verify_list(listed, date, trust, now)

    def view(self, now: datetime) -> HostView:
        """All that a clearance is proven against.

        The clock comes first: to one that was set back, everything newer seems to be of the future.

        Raises:
            TrustError: `clock-set-back`; as `trust`, `state` and `revocations`.
        """
        state = self.state()
        hoststate.check_clock(state, now)
        trust = self.trust(now)
        return HostView(trust=trust, revocations=self.revocations(trust, now), state=state, formats=FORMATS)

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Changes whenever anything that `view` reads does."""
        return tuple(stamp(self.store.host / name) for name in ("trust.json", "state", "list", "date"))

    def remember(self, see: Callable[[HostState], tuple[T, HostState] | Refused]) -> T | Refused:
        """Let `see` prove something against the memory, and keep the memory that it returns.

        Raises:
            StoreError: it cannot be written; then nothing was proven.
        """
        with self._changing():
            before = self.state()
            proven = see(before)
            if isinstance(proven, Refused):
                return proven
            result, after = proven
            if after != before:
                self._write("state", hoststate.encode(after))
            return result

    # Registries

    def accounts(self) -> tuple[RegistryAccount, ...]:
        """The registries that this host knows.

        Raises:
            StoreError: one of the files is not ours alone.
            SpecError: one is damaged.
        """
        folder = self.store.host / "registries"
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        return tuple(self._account(name) for name in names)

    def remote(self, registry: str, *, access: Access | None = None) -> Remote:
        """A client for a registry; `access` gives patience and attempts, the rest is the account's.

        Raises:
            HostError: this host knows no such registry.
        """
        account = next((known for known in self.accounts() if known.registry == registry), None)
        if account is None:
            raise HostError(f"registry {registry}: this host is not enrolled with it")
        return Remote(
            registry,
            replace(
                access or Access(),
                credentials=account.credentials,
                client_certificate=account.certificate,
                plain_http=account.plain_http,
                ca_file=self._ca_file(registry) if account.ca else None,
            ),
        )

    def sync(self, now: datetime, *, access: Access | None = None) -> Synced:
        """Ask every registry for newer trust, revocation list, date and policy floors, and take what is proven."""
        news: list[str] = []
        refused: list[Refused] = []
        silent: list[str] = []
        for account in self.accounts():
            try:
                with self.remote(account.registry, access=access) as remote:
                    offered = _ask(Statements(remote))
            except SourceError as error:
                silent.append(str(error))
                continue
            except SpecError as error:
                refused.append(Refused(code="malformed", subject=f"registry {account.registry}", detail=str(error)))
                continue
            with self._changing():
                for take in (self._take_trust, self._take_list, self._take_floors):
                    try:
                        news += take(offered, now)
                    except TrustError as error:
                        refused.append(Refused.of(error))
        self._write("synced", format_time(whole_seconds(now)).encode())
        return Synced(news=tuple(news), refused=tuple(refused), silent=tuple(silent))

    def sync_if_due(self, now: datetime, every: float, *, access: Access | None = None) -> Synced | None:
        """`sync` unless another process does it now, or somebody did less than `every` seconds ago."""
        fd = os.open(self.store.host / "sync-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = self.synced()
            if last is not None and timedelta(0) <= now - last < timedelta(seconds=every):
                return None
            return self.sync(now, access=access)
        except BlockingIOError:
            return None
        finally:
            os.close(fd)

    def synced(self) -> datetime | None:
        """When the registries were last asked, whatever came of it; None if they never were."""
        raw = self._read("synced", 64)
        return None if raw is None else parse_time(raw.decode("utf-8", "replace"), what="host: synced")

    # Inside

    def _take_trust(self, offered: _Offered, now: datetime) -> Iterator[str]:
        if offered.trust is None:
            return
        before = self.trust(now)
        new = before.update(offered.trust, now)
        if new.digest != before.digest:
            state = hoststate.see_trust(self.state(), new, now)
            self._write("trust.json", offered.trust)
            self._write("state", hoststate.encode(state))
            yield f"trust.json of version {new.root.version}"

    def _take_list(self, offered: _Offered, now: datetime) -> Iterator[str]:
        if offered.revocations is None:
            return
        listed, date = offered.revocations
        current = verify_list(listed, date, self.trust(now), now)
        before = self.state()
        state = hoststate.see_list(before, current, now)
        if self._keeps_date(current, now):
            return
        self._write("list", listed)
        self._write("date", date)
        self._write("state", hoststate.encode(state))
        if before.revocations is None or before.revocations.number != current.list.statement.number:
            yield f"revocation list {current.list.statement.number}"

    def _keeps_date(self, offered: CurrentList, now: datetime) -> bool:
        # A registry that dates the same list anew with an earlier end takes nothing away from us.
        try:
            stored = self.revocations(self.trust(now), now)
        except TrustError:
            return False
        return (
            stored is not None
            and stored.list.digest == offered.list.digest
            and stored.date.statement.expires >= offered.date.statement.expires
        )

    def _take_floors(self, offered: _Offered, now: datetime) -> Iterator[str]:
        for envelope in offered.floors:
            floor = self._believed(now).verify(envelope, PolicyFloor, now)
            before = self.state()
            if floor.statement.version <= before.floor(floor.statement.name):
                continue
            self._write("state", hoststate.encode(hoststate.see_floor(before, floor, now)))
            yield f"floor of policy {floor.statement.name}: version {floor.statement.version}"

    def _believed(self, now: datetime) -> Trust:
        trust = self.trust(now)
        current = self.revocations(trust, now)
        return trust if current is None else trust.revoking(current.list.statement.keys)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        fd = os.open(self.store.host / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _read(self, name: str, limit: int) -> bytes | None:
        path = self.store.host / name
        return read_owned(path, limit=limit, what=f"host: {name}") if path.exists() else None

    def _required(self, name: str, limit: int) -> bytes:
        return read_owned(self.store.host / name, limit=limit, what=f"host: {name}")

    def _write(self, name: str, content: bytes) -> None:
        replace_file(self.store.host / name, content)

    def _ca_file(self, registry: str) -> Path:
        return self.store.host / "registries" / f".{registry}.pem"

    def _write_account(self, account: RegistryAccount) -> None:
        members = {
            "registry": check_registry(account.registry),
            "name": account.credentials.name if account.credentials is not None else "",
            "secret": account.credentials.secret if account.credentials is not None else "",
            "ca": account.ca,
            "plain_http": account.plain_http,
            "certificate": str(account.certificate.chain) if account.certificate is not None else "",
            "certificate_key": str(account.certificate.key) if account.certificate is not None else "",
        }
        if account.ca:
            replace_file(self._ca_file(account.registry), account.ca.encode())
        replace_file(self.store.host / "registries" / account.registry, json.dumps(members).encode())

    def _account(self, name: str) -> RegistryAccount:
        what = f"host: account at {name}"
        raw = read_owned(self.store.host / "registries" / name, limit=MAX_REGISTRY, what=what)
        members = parse_object(raw, what=what)
        account = fields.text(members, "name", what=what)
        secret = fields.text(members, "secret", what=what)
        chain = fields.text(members, "certificate", what=what, default="")
        key = fields.text(members, "certificate_key", what=what, default="")
        return RegistryAccount(
            registry=check_registry(fields.text(members, "registry", what=what)),
            credentials=Credentials(name=account, secret=secret) if account else None,
            certificate=ClientCertificate(chain=Path(chain), key=Path(key)) if chain and key else None,
            ca=fields.text(members, "ca", what=what),
            plain_http=fields.boolean(members, "plain_http", what=what),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offered:
    """What a registry offered in one round, nothing of it proven."""

    trust: bytes | None
    revocations: tuple[bytes, bytes] | None
    floors: tuple[bytes, ...]


def _ask(statements: Statements) -> _Offered:
    return _Offered(trust=statements.trust(), revocations=statements.revocations(), floors=statements.floors())
