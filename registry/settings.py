"""The registry's settings: one YAML or JSON file, strictly read, each key documented where it is declared.

A key that is not declared here is refused, so a misspelt limit cannot silently be no limit. docs/configuration.md
is `reference()`, and a test compares them. Values are checked when the file is read; what needs the outside
(folders, buckets, keys) is checked by those who open it, before the first request.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints
from urllib.parse import urlsplit

import yaml

from ocispec.strictjson import type_name
from registry import settings_checks as checks
from registry.errors import SettingsError
from registry.settings_checks import Key, Section, Sections, choice, number
from registry.settings_collect import COLLECT, CollectSettings
from registry.settings_identity import (
    LOGINS,
    MAX_ISSUERS,
    TOKENS,
    CertificateSettings,
    LoginSettings,
    OidcSettings,
    TokenSettings,
    check_identity,
)
from registry.settings_mirror import MAX_MIRRORS, MirrorSettings, check_mirrors
from registry.settings_operation import LOG, METRICS, TRACES, LogSettings, MetricsSettings, TraceSettings
from registry.settings_rates import RATES, RateSettings
from registry.settings_storage import STORAGE, StorageSettings

MAX_FILE: Final = 256 * 1024
"""Bytes of a settings file."""

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """`http`: how the API is served."""

    listen: Annotated[str, Key("Address and port to listen on.", checks.address)] = "127.0.0.1:5000"
    certificate: Annotated[Path | None, Key("TLS certificate chain (PEM); without it plain HTTP.", checks.path)] = None
    key: Annotated[Path | None, Key("TLS private key (PEM), needed with `certificate`.", checks.path)] = None
    url: Annotated[
        str,
        Key(
            "Address that clients reach the registry at; without it `name` behind `https://`, or behind `http://` "
            "where there is neither `certificate` nor a proxy.",
            checks.url,
        ),
    ] = ""
    proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        Key(
            "Networks of the proxies in front, e.g. `[10.0.0.0/8]`. Only these are believed whom they ask for; without "
            "`certificate`, on an address that is not loopback, only these are answered.",
            checks.networks,
        ),
    ] = ()
    forwarded_header: Annotated[
        str,
        Key(
            "Where the proxies say so: `x-forwarded-for`, or `forwarded` (RFC 7239); each must add to it what it sees.",
            choice("x-forwarded-for", "forwarded"),
        ),
    ] = "x-forwarded-for"
    drain: Annotated[
        int,
        Key("Seconds from the word to stop, when `/readyz` turns, until no more requests are taken.", number(0, 3600)),
    ] = 0
    stop: Annotated[
        int, Key("Seconds that requests under way may then still take; what is left is cut off.", number(1, _DAY))
    ] = 30
    workers: Annotated[int, Key("Web processes.", number(1, 64))] = 1
    threads: Annotated[int, Key("Requests that one web process handles at a time.", number(2, 1024))] = 32
    body_deadline: Annotated[int, Key("Seconds that one request's body may take in all.", number(1, _DAY))] = 3600
    body_minimum_rate: Annotated[
        int, Key("Bytes a second, over `body_stall` seconds, below which a body is cut off.", number(1, 2**30))
    ] = 1024
    body_stall: Annotated[
        int, Key("Seconds that a body may come too slowly, and a reader not read.", number(2, _DAY))
    ] = 45
    bodies_per_account: Annotated[
        int, Key("Blobs that one account may be sending at a time; more are answered 429.", number(1, 1024))
    ] = 16
    bodies: Annotated[
        int,
        Key(
            "Request bodies that one web process receives at a time; more are answered 429. Each has a thread beside "
            "`threads`, so that slow ones keep nothing else waiting.",
            number(1, 8192),
        ),
    ] = 256
    downloads: Annotated[
        int,
        Key(
            "Blobs that one web process sends at a time, at most half of them to one account; more are answered 429. "
            "Each has a thread beside `threads`.",
            number(1, 8192),
        ),
    ] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """`limits`: what one push may cost."""

    blob_bytes: Annotated[int, Key("Bytes of one blob.", number(1, 2**50))] = 64 * 2**30
    upload_expiry: Annotated[
        int, Key("Seconds after its last byte when an upload session is dropped.", number(60, 366 * _DAY))
    ] = _DAY
    free_bytes: Annotated[
        int, Key("Free bytes below `data`, with less of which `/readyz` turns.", number(0, 2**50))
    ] = 16 * 2**20
    uploads_per_account: Annotated[
        int, Key("Upload sessions that one account may have open; more are answered 429.", number(1, 1_000_000))
    ] = 1000
    referrers: Annotated[int, Key("Referrers that one manifest may have.", number(1, 100_000))] = 1000
    page: Annotated[int, Key("Names in one page of a list, at most.", number(1, 10_000))] = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """`judge`: scanning and deciding."""

    push_wait_ms: Annotated[
        int, Key("Milliseconds that the push of a manifest waits for the Decision.", number(0, 60_000))
    ] = 2000
    workers: Annotated[int, Key("Judge processes.", number(1, 16))] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerSettings:
    """`signer`: where several registries sign as one."""

    memory: Annotated[
        Path | None,
        Key(
            "File with the SQLAlchemy URL of the signer's memory, which the signer's user alone may read. Needed where "
            "several registries share a catalogue: a PostgreSQL database and role that nothing but signers know. "
            "Without it a file beside the key.",
            checks.path,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings:
    """`users`: which users of the operating system the processes run as, where the registry is started as root.

    Names or numbers; numbers need no entry in /etc/passwd. They are different by default, or none of them would be
    kept from what is another's (Debian policy 9.2.2 keeps 60000 to 64999 for packages that ask for them).
    """

    web: Annotated[str, Key("User of the web processes, by name or number.", checks.text)] = "60101"
    judge: Annotated[str, Key("User of the judge.", checks.text)] = "60102"
    signer: Annotated[str, Key("User of the signer, who alone reads the private key.", checks.text)] = "60103"
    mirror: Annotated[str, Key("User of the process that fetches from other registries.", checks.text)] = "60105"
    group: Annotated[str, Key("Group by which they share store and catalogue.", checks.text)] = "60100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    name: Annotated[
        str,
        Key(
            "The registry as it is called in references, `host` or `host:port`. Clearances and tag statements are "
            "bound to it; the Host header is never believed.",
            checks.registry_name,
        ),
    ]
    data: Annotated[Path, Key("Folder of store, catalogue, keys and sockets; absolute.", checks.path)]
    catalogue: Annotated[
        str, Key("SQLAlchemy URL of the catalogue; without it SQLite at `data`/catalogue.sqlite.", checks.text)
    ] = ""
    trust: Annotated[Path | None, Key("trust.json that is taken in at the first start.", checks.path)] = None
    policy: Annotated[Path | None, Key("Signed policy that is taken in at the first start.", checks.path)] = None
    bootstrap_token: Annotated[
        str,
        Key("One-time token for making the first admin; without it one is made and printed.", checks.secret),
    ] = field(default="", repr=False)
    storage: Annotated[StorageSettings, Section("Where blobs are kept.", StorageSettings)] = STORAGE
    http: Annotated[HttpSettings, Section("How the API is served.", HttpSettings)] = HttpSettings()
    limits: Annotated[LimitSettings, Section("What one push may cost.", LimitSettings)] = LimitSettings()
    rates: Annotated[RateSettings, Section("Requests a second of each web process; 0 is any number.", RateSettings)] = (
        RATES
    )
    judge: Annotated[JudgeSettings, Section("Scanning and deciding.", JudgeSettings)] = JudgeSettings()
    signer: Annotated[SignerSettings, Section("Signing as one of several registries.", SignerSettings)] = (
        SignerSettings()
    )
    collect: Annotated[CollectSettings, Section("Garbage collection.", CollectSettings)] = COLLECT
    log: Annotated[LogSettings, Section("What is written to standard error.", LogSettings)] = LOG
    metrics: Annotated[MetricsSettings, Section("What Prometheus is told.", MetricsSettings)] = METRICS
    traces: Annotated[TraceSettings, Section("OpenTelemetry, if `pratique[otel]` is there.", TraceSettings)] = TRACES
    tokens: Annotated[TokenSettings, Section("What `/token` gives out.", TokenSettings)] = TOKENS
    logins: Annotated[LoginSettings, Section("Passwords, and failed logins.", LoginSettings)] = LOGINS
    oidc: Annotated[
        tuple[OidcSettings, ...],
        Sections("A list: whose bearer tokens of people and builds are believed.", OidcSettings, MAX_ISSUERS),
    ] = ()
    certificates: Annotated[
        CertificateSettings | None, Section("Client certificates; without it none are asked for.", CertificateSettings)
    ] = None
    mirrors: Annotated[
        tuple[MirrorSettings, ...],
        Sections("A list: which repositories are copies of another registry's.", MirrorSettings, MAX_MIRRORS),
    ] = ()
    users: Annotated[UserSettings, Section("Users of the processes, when started as root.", UserSettings)] = (
        UserSettings()
    )

    @property
    def catalogue_url(self) -> str:
        """The catalogue's URL, with the default filled in."""
        return self.catalogue or f"sqlite:///{self.data / 'catalogue.sqlite'}"

    @property
    def url(self) -> str:
        """The address that clients reach the registry at, without a slash at its end."""
        if self.http.url:
            return self.http.url.rstrip("/")
        secure = self.http.certificate is not None or self.http.proxies
        return f"{'https' if secure else 'http'}://{self.name}"

    @property
    def token_url(self) -> str:
        """Where clients are sent for a token; never taken from a request."""
        if self.certificates is None or not self.certificates.listen:
            return f"{self.url}/token"
        if self.certificates.url:
            return f"{self.certificates.url.rstrip('/')}/token"
        host, port = urlsplit(f"//{self.name}").hostname or "", self.certificates.listen.rpartition(":")[2]
        return f"https://{f'[{host}]' if ':' in host else host}:{port}/token"

    @property
    def store_folder(self) -> Path:
        """Where the `files` engine keeps the store."""
        return self.data / "store"

    @property
    def run_folder(self) -> Path:
        """Where the processes' sockets are."""
        return self.data / "run"

    @property
    def judge_socket(self) -> Path:
        """Where the judge hears that there is something to do."""
        return self.run_folder / "judge.sock"


def load(path: Path) -> Settings:
    """Read the settings file at `path`.

    Raises:
        SettingsError: unreadable, too large, not YAML, or a key is unknown, missing or malformed.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"settings {path}: {error.strerror}") from error
    try:
        return parse(raw)
    except SettingsError as error:
        raise SettingsError(*(f"{path}: {problem}" for problem in error.problems)) from error


def parse(raw: bytes) -> Settings:
    """Return the settings in a YAML (or JSON) document.

    Raises:
        SettingsError: as for `load`.
    """
    if len(raw) > MAX_FILE:
        raise SettingsError(f"settings: got {len(raw)} bytes, expected at most {MAX_FILE}")
    try:
        members = yaml.load(raw, Loader=_StrictLoader)  # noqa: S506 -- a SafeLoader that refuses more
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"settings: not YAML: {' '.join(str(error).split())[:200]}") from error
    settings = _build(Settings, members, "")
    http = settings.http
    problems: list[str] = []
    for check in (
        settings.storage.check,
        lambda: _check_listeners(settings),
        lambda: check_mirrors(settings.mirrors, settings.name),
        lambda: check_identity(
            settings.name,
            secure=http.certificate is not None,
            proxied=bool(http.proxies),
            oidc=settings.oidc,
            certificates=settings.certificates,
        ),
    ):
        try:
            check()
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(*problems)
    return settings


def _check_listeners(settings: Settings) -> None:
    """Nothing is served in the clear to whoever happens to be on the network."""
    http, metrics = settings.http, settings.metrics
    if (http.certificate is None) != (http.key is None):
        raise SettingsError("setting http.certificate: expected together with http.key, or neither")
    if http.certificate is None and not http.proxies and not is_loopback(http.listen):
        raise SettingsError(
            f"setting http.listen: {http.listen} is no loopback address, expected http.certificate and http.key, or "
            "http.proxies if a proxy in front ends TLS"
        )
    if metrics.listen and not metrics.token and not is_loopback(metrics.listen):
        raise SettingsError(f"setting metrics.listen: {metrics.listen} is no loopback address, expected metrics.token")


def is_loopback(listen: str) -> bool:
    """True if only processes of this machine can reach an address with a port."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases (one line can stand for gigabytes) and without duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise SettingsError("settings: YAML aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if not isinstance(key, str) or key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise SettingsError(f"settings: line {line}: key {key!r} is not text, or stands there twice")
        return super().construct_mapping(node, deep)


T = TypeVar("T")


def _build(kind: type[T], members: object, prefix: str) -> T:
    if not isinstance(members, Mapping):
        raise SettingsError(f"settings: {prefix or 'the file'} is {type_name(members)}, expected keys and values")
    declared = dict(_declared(kind))
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name in members:
        if name not in declared:
            known = ", ".join(sorted(declared))
            problems.append(f"setting {prefix}{str(name)[:80]}: unknown key, expected one of {known}")
    for name, (mark, default) in declared.items():
        try:
            if name in members:
                values[name] = _value(mark, members[name], prefix + name)
            elif default is dataclasses.MISSING:
                problems.append(f"setting {prefix}{name}: missing")
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(*problems)
    return kind(**values)


def _value(mark: Key | Section | Sections, found: object, key: str) -> object:
    if isinstance(mark, Section):
        return _build(mark.kind, found, f"{key}.")
    return _build_all(mark, found, key) if isinstance(mark, Sections) else mark.check(found, key)


def _build_all(mark: Sections, members: object, key: str) -> tuple[Any, ...]:
    if not isinstance(members, list) or not 1 <= len(members) <= mark.limit:
        raise SettingsError(
            f"setting {key}: got {type_name(members)}, expected a list of 1 to {mark.limit} groups of keys"
        )
    return tuple(_build(mark.kind, each, f"{key}[{position}].") for position, each in enumerate(members))


def _declared(kind: type) -> Iterator[tuple[str, tuple[Key | Section | Sections, object]]]:
    hints = get_type_hints(kind, include_extras=True)
    for item in dataclasses.fields(kind):
        yield item.name, (hints[item.name].__metadata__[0], item.default)


def reference() -> str:
    """Every key with its default and meaning: the text of docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "The registry reads one file, YAML or JSON. With an unknown key, a duplicate key or a YAML alias in it the",
        "registry does not start, and says which. This page is made from registry/settings.py; a test keeps it so.",
        "",
        "| key | default | meaning |",
        "| --- | --- | --- |",
        *_rows(Settings, ""),
    ]
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if default is None or default in ("", ()):
        return "none"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _rows(kind: type, prefix: str) -> Iterator[str]:
    for name, (mark, default) in _declared(kind):
        if isinstance(mark, Section):
            yield f"| `{prefix}{name}` | | {mark.doc} |"
            yield from _rows(mark.kind, f"{prefix}{name}.")
        elif isinstance(mark, Sections):
            yield f"| `{prefix}{name}` | | {mark.doc} |"
            yield from _rows(mark.kind, f"{prefix}{name}[].")
        else:
            shown = "required" if default is dataclasses.MISSING else _shown(default)
            yield f"| `{prefix}{name}` | {shown} | {mark.doc} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
