"""The settings file: every key is documented, and what is wrong is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.errors import SettingsError
from registry.settings import Settings, load, parse, reference
from registry.settings_checks import KNOWN_SECRETS

MINIMUM = {"name": "registry.test:5000", "data": "/var/lib/registry"}
S3 = {"engine": "s3", "s3": {"bucket": "b", "access_key": "k", "secret_key": "of-the-tests"}}


def s3(**members: object) -> dict[str, object]:
    """A document with these members of `storage.s3` beside the bucket."""
    return {**MINIMUM, "storage": {"engine": "s3", "s3": {"bucket": "b", **members}}}


def settings(**members: object) -> Settings:
    """The settings of a document with these members beside what is required."""
    return parse(json.dumps({**MINIMUM, **members}).encode())


def test_two_keys_are_enough() -> None:
    found = settings()
    assert found.name == "registry.test:5000"
    assert found.catalogue_url == "sqlite:////var/lib/registry/catalogue.sqlite"
    assert found.store_folder == Path("/var/lib/registry/store")
    assert found.judge_socket == Path("/var/lib/registry/run/judge.sock")
    assert found.http.listen == "127.0.0.1:5000"


def test_yaml_and_json_say_the_same() -> None:
    yaml = b"name: registry.test:5000\ndata: /var/lib/registry\nhttp:\n  threads: 8\n"
    assert parse(yaml) == settings(http={"threads": 8})


def test_the_page_of_settings_is_the_one_that_the_code_makes() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text() == reference(), "write docs/configuration.md again: python -m registry.settings"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**MINIMUM, "nmae": "x"}, "setting nmae: unknown key"),
        ({**MINIMUM, "http": {"thread": 1}}, "setting http.thread: unknown key"),
        ({"data": "/x"}, "setting name: missing"),
        ({"name": "registry.test"}, "setting data: missing"),
        ({**MINIMUM, "data": "relative"}, "setting data: got 'relative', expected an absolute path"),
        ({**MINIMUM, "name": "https://registry.test"}, "setting name: got 'https://registry.test', expected host"),
        ({**MINIMUM, "name": ""}, "setting name: got '', expected text"),
        ({**MINIMUM, "http": {"threads": "8"}}, "setting http.threads: got '8', expected a number from 2 to 1024"),
        ({**MINIMUM, "http": {"threads": True}}, "setting http.threads: got True"),
        ({**MINIMUM, "http": {"listen": "5000"}}, "setting http.listen: got '5000', expected address:port"),
        ({**MINIMUM, "http": []}, r"settings: http\. is an array, expected keys and values"),
        ({**MINIMUM, "http": {"certificate": "/c.pem"}}, "setting http.certificate: expected together"),
        ({**MINIMUM, "storage": {"engine": "ftp"}}, "setting storage.engine: got 'ftp', expected one of files, s3"),
        ({**MINIMUM, "storage": {"engine": "s3"}}, "setting storage.s3: expected exactly where"),
        ({**MINIMUM, "storage": {"s3": S3["s3"]}}, "setting storage.s3: expected exactly where"),
        ({**MINIMUM, "storage": {"engine": "s3", "s3": {"prefix": "a/"}}}, "setting storage.s3.bucket: missing"),
        (s3(access_key="k"), "setting storage.s3.access_key: expected together with storage.s3.secret_key"),
        (s3(encryption="aes"), "setting storage.s3.encryption: got 'aes', expected one of none, AES256, aws:kms"),
        (s3(kms_key="k"), "setting storage.s3.kms_key: expected only where"),
        (s3(memory=5 * 2**20), "setting storage.s3.memory: got 5242880, expected at least part_size, 8388608"),
        (s3(redirects=61), "setting storage.s3.redirects: got 61, expected a number from 0 to 60"),
        (s3(redirect_endpoint="https://s3.test"), "setting storage.s3.redirect_endpoint: expected only where"),
        ([], "settings: the file is an array"),
    ],
)
def test_what_is_wrong_is_named(document: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name: a\nname: b\ndata: /x\n", "line 2: key 'name'"),
        (b"name: &x a\ndata: *x\n", "aliases"),
        (b"1: 2\n", "line 1: key 1 is not text"),
        (b"name: [\n", "not YAML"),
        (b"name: !!python/object/apply:os.system ['true']\ndata: /x\n", "not YAML"),
        (b"name: \xff\n", "not YAML"),
        (b"x" * 300_000, "expected at most 262144"),
    ],
)
def test_a_file_that_could_be_read_in_two_ways_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(text)


@pytest.mark.parametrize("secret", ["", "   ", *sorted(KNOWN_SECRETS), "Harbor12345", "ADMIN"])
def test_r7_an_empty_or_known_secret_stops_the_start(secret: str) -> None:
    with pytest.raises(SettingsError, match="bootstrap_token: the secret is"):
        settings(bootstrap_token=secret)
    with pytest.raises(SettingsError, match="secret_key: the secret is"):
        settings(storage={"engine": "s3", "s3": {"bucket": "b", "access_key": "k", "secret_key": secret}})


PLAIN = {"listen": "0.0.0.0:5000"}
TLS = {"certificate": "/c.pem", "key": "/k.pem"}


@pytest.mark.parametrize("listen", ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000", "registry.test:5000"])
def test_plain_http_beyond_this_machine_needs_a_proxy_in_front(listen: str) -> None:
    with pytest.raises(SettingsError, match=r"http\.listen: .* is no loopback address, expected http\.certificate"):
        settings(http={"listen": listen})
    assert settings(http={"listen": listen, "proxies": ["192.0.2.0/24"]}).http.proxies
    assert settings(http={"listen": listen, **TLS}).http.certificate


@pytest.mark.parametrize("listen", ["127.0.0.1:5000", "127.9.9.9:5000", "[::1]:5000", "localhost:5000"])
def test_plain_http_on_this_machine_needs_none(listen: str) -> None:
    assert settings(http={"listen": listen}).http.listen == listen


def test_metrics_beyond_this_machine_need_a_token() -> None:
    with pytest.raises(SettingsError, match=r"metrics\.listen: .* expected metrics\.token"):
        settings(metrics={"listen": "0.0.0.0:9100"})
    assert settings(metrics={"listen": "0.0.0.0:9100", "token": "of-the-tests"}).metrics.listen
    assert settings(metrics={"listen": "127.0.0.1:9100"}).metrics.listen


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10.0.0.0/8", "expected a list of at most 256 networks"),
        (["10.0.0.1/8"], "has host bits set"),
        (["nginx.test"], "does not appear to be an IPv4 or IPv6 network"),
        ([1], "got 1, expected text"),
        (["10.0.0.0/8"] * 257, "expected a list of at most 256 networks"),
    ],
)
def test_what_is_no_list_of_networks_is_refused(value: object, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"setting http\.proxies: .*{message}"):
        settings(http={"proxies": value})


def test_the_address_for_clients_is_set_or_follows_from_name_and_tls() -> None:
    assert settings().url == "http://registry.test:5000"
    assert settings(http=TLS).url == "https://registry.test:5000"
    assert settings(http={"proxies": ["127.0.0.1"]}).url == "https://registry.test:5000"
    assert settings(http={"url": "https://registry.example/"}).url == "https://registry.example"


def test_secrets_are_not_shown() -> None:
    found = settings(bootstrap_token="a-one-time-token", storage=S3)
    assert "a-one-time-token" not in repr(found)
    assert "of-the-tests" not in repr(found)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"registry\.yaml: No such file"):
        load(tmp_path / "registry.yaml")
