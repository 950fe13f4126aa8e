"""Client certificates as values: which are believed, whom they speak for, and what a proxy may pass on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from registry.audit import Audit, Event, read
from registry.catalogue.accounts import add_account, bind_certificates
from registry.catalogue.database import Catalogue
from registry.certificates import Certificates, authorities, from_header, names_of
from registry.errors import SettingsError
from registry.identity.failures import FailureLog
from registry.identity.identity import Method
from registry.settings_identity import CertificateSettings
from tests.support.certificates import Authority, Client, authority
from tests.support.identity import decoded, ended_identities, fresh, robot, utc_now
from tests.support.registry import web_registry

__all__ = ["ended_identities"]  # a fixture of every test here

Make = Callable[..., Certificates]


@pytest.fixture
def database(tmp_path: Path) -> str:
    """SQLite alone: what is looked up is tested on both with the accounts."""
    return fresh(tmp_path)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ca")


@pytest.fixture
def failures(catalogue: Catalogue) -> FailureLog:
    return FailureLog(catalogue, Audit(utc_now), utc_now)


@pytest.fixture
def make(catalogue: Catalogue, ours: Authority, failures: FailureLog) -> Make:
    def made(*, crl: Path | None = None, at: datetime | None = None, ca: Path | None = None) -> Certificates:
        settings = CertificateSettings(ca=ca or ours.file, crl=crl, listen="127.0.0.1:1")
        return Certificates(settings, catalogue, failures, (lambda: at) if at is not None else utc_now)

    with catalogue.write() as conn:
        add_account(conn, robot("host-1"))
        bind_certificates(conn, "host-1", ["dns:host-1.test"])
    return made


def said(catalogue: Catalogue, failures: FailureLog) -> str:
    """Why the last one was refused, by the audit."""
    failures.flush()
    with catalogue.read() as conn:
        return [record.after for record in read(conn, after=0, limit=100) if record.event == Event.LOGIN][-1]


def test_it_speaks_for_the_account_that_it_is_bound_to(make: Make, ours: Authority) -> None:
    found = make().identify(ours.issue_client("host-1.test", days=3).der, "10.0.0.1")
    assert found is not None
    assert (found.principal.name, found.method) == ("host-1", Method.CERTIFICATE)
    assert found.ends is not None
    assert found.ends < datetime.now(UTC) + timedelta(days=3)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"days": -1, "begins": timedelta(days=-9)}, "good from"),
        ({"begins": timedelta(days=1)}, "good from"),
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, "not a client's"),
        ({"usage": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}, "not a client's"),
    ],
)
def test_what_does_not_count_is_refused_and_noted(
    make: Make, ours: Authority, catalogue: Catalogue, failures: FailureLog, wrong: dict[str, object], why: str
) -> None:
    shown = ours.issue_client("host-1.test", **wrong)  # type: ignore[arg-type]  # of the parameters' types
    assert make().identify(shown.der, "10.0.0.1") is None
    assert why in said(catalogue, failures)


def test_without_an_extended_key_usage_it_is_for_everything(make: Make, ours: Authority) -> None:
    assert make().identify(ours.issue_client("host-1.test", usage=None).der, "10.0.0.1") is not None


def test_an_authority_of_the_same_name_signs_nothing(
    make: Make, tmp_path: Path, catalogue: Catalogue, failures: FailureLog
) -> None:
    foreign = authority(tmp_path / "foreign")
    assert make().identify(foreign.issue_client("host-1.test").der, "10.0.0.1") is None
    assert "signed by none of the authorities" in said(catalogue, failures)


def test_an_authority_that_has_ended_signs_nothing(make: Make, ours: Authority) -> None:
    shown = ours.issue_client("host-1.test", days=1000)
    assert make().identify(shown.der, "10.0.0.1") is not None
    assert make(at=datetime.now(UTC) + timedelta(days=400)).identify(shown.der, "10.0.0.1") is None


@pytest.mark.parametrize("raw", [b"", b"x", b"0" * 100_000, b"\x30\x82\xff\xff"])
def test_what_is_no_certificate_is_nobody(make: Make, raw: bytes) -> None:
    assert make().identify(raw, "10.0.0.1") is None


def test_a_certificate_with_a_bit_turned_is_nobody(make: Make, ours: Authority) -> None:
    raw = bytearray(ours.issue_client("host-1.test").der)
    certificates = make()
    for position in range(0, len(raw), 7):
        raw[position] ^= 1
        assert certificates.identify(bytes(raw), "10.0.0.1") is None
        raw[position] ^= 1
    assert certificates.identify(bytes(raw), "10.0.0.1") is not None


def test_it_speaks_for_one_account_or_for_none(make: Make, ours: Authority, catalogue: Catalogue) -> None:
    shown = ours.issue_client("host-1.test", uris=("spiffe://test/x",))
    certificates = make()
    assert certificates.identify(shown.der, "10.0.0.1") is not None
    with catalogue.write() as conn:
        add_account(conn, robot("host-2"))
        bind_certificates(conn, "host-2", ["uri:spiffe://test/x"])
    assert certificates.identify(shown.der, "10.0.0.1") is None
    assert certificates.identify(ours.issue_client("host-3.test").der, "10.0.0.1") is None


def test_names_are_of_their_kind(ours: Authority) -> None:
    shown = ours.issue_client("Host-1.TEST", uris=("spiffe://test/x",))
    assert set(names_of(shown.certificate)) == {
        shown.fingerprint,
        "dns:host-1.test",
        "uri:spiffe://test/x",
        "cn:Host-1.TEST",
    }


def test_an_account_that_has_ended_is_not_spoken_for(make: Make, ours: Authority, catalogue: Catalogue) -> None:
    certificates = make()
    with catalogue.write() as conn:
        add_account(conn, robot("over", expires=utc_now() - timedelta(seconds=1)))
        bind_certificates(conn, "over", ["dns:over.test"])
    assert certificates.identify(ours.issue_client("over.test").der, "10.0.0.1") is None


def test_revocation(make: Make, ours: Authority, tmp_path: Path, catalogue: Catalogue, failures: FailureLog) -> None:
    shown, other = ours.issue_client("host-1.test"), ours.issue_client("other.test")
    crl = ours.revoke(other)
    certificates = make(crl=crl)
    assert certificates.identify(shown.der, "10.0.0.1") is not None
    ours.revoke(shown)
    assert certificates.identify(shown.der, "10.0.0.1") is None
    assert "revoked" in said(catalogue, failures)
    for spoil in (
        lambda: ours.revoke(days=-1),
        lambda: authority(tmp_path / "foreign").revoke(file=crl),
        lambda: crl.write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
        lambda: crl.write_bytes(b""),
        crl.unlink,
    ):
        spoil()
        assert certificates.identify(shown.der, "10.0.0.1") is None
    ours.revoke(other)
    assert certificates.identify(shown.der, "10.0.0.1") is not None


def test_files_that_cannot_be_used_stop_the_start(make: Make, ours: Authority, tmp_path: Path) -> None:
    client = ours.issue_client("host-1.test")
    with pytest.raises(SettingsError, match="is no authority"):
        authorities(client.chain)
    with pytest.raises(SettingsError, match=r"certificates\.ca"):
        authorities(tmp_path / "nothing.pem")
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"certificates\.ca"):
        authorities(tmp_path / "empty.pem")
    with pytest.raises(SettingsError, match=r"certificates\.crl"):
        make(crl=tmp_path / "nothing.pem")


# ---- behind a proxy ----------------------------------------------------------------------------------------------


def _shown(client: Client) -> tuple[str, str]:
    """As RFC 9440 has it, and as nginx escapes it."""
    pem = client.certificate.public_bytes(Encoding.PEM).decode()
    return f":{base64.b64encode(client.der).decode()}:", quote(pem)


def test_headers_of_both_forms_are_read(ours: Authority) -> None:
    client = ours.issue_client("host-1.test")
    for text in _shown(client):
        assert from_header(text) == client.der


@pytest.mark.parametrize(
    "text",
    ["", ":", "::", ":!:", "x" * 40_000, ":" + "A" * 40_000 + ":", "-----BEGIN%20CERTIFICATE-----%0A", "%", "%00"],
)
def test_other_headers_are_nothing(text: str) -> None:
    found = from_header(text)
    assert found is None or not found


def test_only_a_proxy_of_ours_passes_certificates_on(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ca")
    client = ours.issue_client("host-1.test")
    texts = _shown(client)
    for proxies, status in ((["127.0.0.0/8"], 200), (["10.0.0.0/8"], 401)):
        certificates = {"ca": str(ours.file), "header": "X-Client-Cert"}
        folder = tmp_path / f"registry-{status}"
        with web_registry(folder, http={"proxies": proxies}, certificates=certificates) as live:
            catalogue = live.catalogue()
            with catalogue.write() as conn:
                bind_certificates(conn, "host", ["dns:host-1.test"])
            catalogue.close()
            for text in texts:
                found = live.request("GET", "/token", account=None, X_Client_Cert=text)
                assert found.status == status
                if status == 200:
                    assert decoded(json.loads(found.body)["token"])[1]["sub"] == "host"
            # The certificate is for /token; elsewhere it says nothing.
            assert live.request("GET", "/v2/", account=None, X_Client_Cert=texts[0]).status == 401
            connection = HTTPConnection("127.0.0.1", live.port, timeout=30)
            connection.request("GET", "/token", headers={"Client-Cert": texts[0]})
            assert connection.getresponse().status == 401
            connection.close()


def test_fingerprints_are_of_the_whole_certificate(ours: Authority) -> None:
    first, second = ours.issue_client("host-1.test"), ours.issue_client("host-1.test")
    assert first.fingerprint != second.fingerprint
    assert isinstance(x509.load_der_x509_certificate(first.der), x509.Certificate)
