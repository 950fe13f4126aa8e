"""Bad input from this machine: files, folders, keys, settings, arguments, the clock. No registry is asked."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ocispec.digest import Digest
from tests.chain.clear_line import Case, check, one_line
from tests.chain.stage import POLICY, Desk
from tests.support.images import image
from tests.support.layers import END, archive, header, member, oci_layout, pax
from tests.support.tools import need

BUILT = image([{"etc/": b"", "etc/motd": b"hello\n"}, {"srv/": b"", "srv/data": random.Random(1).randbytes(3000)}])
"""A good image, to be spoilt."""

BLOB = str(BUILT.layers[-1].descriptor.digest)
SIZE = BUILT.layers[-1].descriptor.size
CONFIG = BUILT.config.raw
DIFF_ID = str(BUILT.diff_ids[-1]).encode()
OTHER = b"sha256:" + b"0" * 64


def layout(spoil: Callable[[bytes], bytes | None]) -> Callable[[Desk], str]:
    """A layout whose top layer's blob is another one, or gone."""

    def prepare(desk: Desk) -> str:
        path = BUILT.write_layout(desk.folder / "image", "t") / "blobs/sha256" / Digest.parse(BLOB).hex
        spoilt = spoil(path.read_bytes())
        path.unlink()
        if spoilt is not None:
            path.write_bytes(spoilt)
        return "oci:image:t"

    return prepare


def of_tar(tar: bytes) -> Callable[[Desk], str]:
    """A layout of an image whose one layer is this tar; its digests are right."""

    def prepare(desk: Desk) -> str:
        oci_layout(desk.folder / "image", [tar])
        return "oci:image:t"

    return prepare


def of_config(spoil: Callable[[bytes], bytes]) -> Callable[[Desk], str]:
    """A layout of an image with another config, whose digests are right."""
    return of_documents(spoil, lambda manifest: manifest)


def of_documents(config: Callable[[bytes], bytes], manifest: Callable[[bytes], bytes]) -> Callable[[Desk], str]:
    """A layout of an image with another config and another manifest, whose digests are right."""

    def prepare(desk: Desk) -> str:
        folder = BUILT.write_layout(desk.folder / "image")
        spoilt = config(CONFIG)
        members = json.loads(BUILT.manifest.raw)
        members["config"] |= {"digest": put(folder, spoilt), "size": len(spoilt)}
        raw = manifest(json.dumps(members).encode())
        entry = {"mediaType": BUILT.manifest.media_type, "digest": put(folder, raw), "size": len(raw)}
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return "oci:image"

    return prepare


def put(folder: Path, content: bytes) -> str:
    """Store a blob in a layout; its digest."""
    digest = Digest.of(content)
    (folder / "blobs/sha256" / digest.hex).write_bytes(content)
    return str(digest)


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


SOURCES: tuple[tuple[str, Callable[[Desk], str], tuple[str, ...]], ...] = (
    ("truncated-layer", layout(lambda raw: raw[:-20]), (f"blob {BLOB}", f"got {SIZE - 20}", f"want {SIZE}")),
    ("longer-layer", layout(lambda raw: raw + b"x"), (f"blob {BLOB}", f"got more than {SIZE} bytes")),
    ("wrong-digest", layout(flipped), (f"blob {BLOB}: digest mismatch: got sha256:", f"want {BLOB}")),
    ("lost-layer", layout(lambda _: None), (f"blob {BLOB}: no such file",)),
    ("tar-cut-short", of_tar(member(b"a", data=bytes(4000))[:2048]), ("layer sha256:", "member b'a'")),
    ("tar-not-whole-blocks", of_tar(bytes(1000)), ("layer sha256:", "1000 bytes", "expected a multiple of 512")),
    ("tar-of-noise", of_tar(random.Random(2).randbytes(1024)), ("layer sha256:", "offset 0", "checksum", "expected")),
    ("tar-checksum", of_tar(archive(header(b"a", checksum=b"000000\0 "))), ("header checksum is 0, expected",)),
    ("tar-without-end", of_tar(member(b"a", data=b"1")), ("layer sha256:", "without two blocks of zeros")),
    ("tar-goes-on-after-its-end", of_tar(archive(member(b"a")) + archive(member(b"b"))), ("offset 512", "follows")),
    ("tar-climbs-out", of_tar(archive(member(b"../etc/passwd", data=b"x"))), ("member b'../etc/passwd'", "'..'")),
    ("tar-negative-size", of_tar(archive(header(b"a", fields={124: b"\xff" * 12}))), ("size is -1, expected 0",)),
    ("tar-two-pax-headers", of_tar(archive(pax({b"path": b"x"}), pax({b"path": b"y"}), header(b"a"))), ("second",)),
    ("tar-name-with-nul", of_tar(archive(member(b"a", extended={b"path": b"b\0c"}))), ("holds a NUL",)),
    ("tar-link-to-nothing", of_tar(archive(member(b"a", b"1", link=b"nope"))), ("hard link to b'nope'",)),
    ("tar-whiteout-of-nothing", of_tar(archive(member(b".wh..")) + END), ("member b'.wh..'", "whiteout")),
    ("config-not-utf8", of_config(lambda _: b"\xff\xfe{"), ("config sha256:", "not UTF-8 at byte 0")),
    ("config-twice-the-same-key", of_config(lambda raw: b'{"os":"linux",' + raw[1:]), ("duplicate name 'os'",)),
    ("config-nan", of_config(lambda raw: raw[:-1] + b',"x":NaN}'), ("config sha256:", "NaN")),
    ("config-too-deep", of_config(lambda _: b"[" * 100_000), ("config sha256:", "nested deeper than 64")),
    ("config-too-large", of_config(lambda raw: raw + b" " * (5 << 20)), ("config sha256:", "expected at most")),
    ("config-escape", of_config(lambda raw: raw.replace(b"linux", b"\\u001b[31mli\\nux")), ("platform", "x1b[31m")),
    ("config-of-other-layers", of_config(lambda raw: raw.replace(DIFF_ID, OTHER)), ("diff_id mismatch: got", "want")),
    (
        "manifest-is-an-index-too",
        of_documents(lambda raw: raw, lambda raw: raw[:-1] + b',"manifests":[]}'),
        ("manifest sha256:", "manifests"),
    ),
    (
        "manifest-of-another-type",
        of_documents(lambda raw: raw, lambda raw: raw.replace(b"image.manifest.v1", b"image.index.v1")),
        ("manifest sha256:", "image.index.v1", "sent as"),
    ),
    ("no-layout", lambda _: "oci:nowhere:t", ("layout nowhere: no such file",)),
    ("no-archive", lambda _: "docker-archive:nowhere.tar", ("archive nowhere.tar: no such file",)),
    ("not-a-reference", lambda _: "registry.example/app@sha256:12", ("digest 'sha256:12'", "expected 64")),
    ("unknown-scheme", lambda _: "ftp://x/y", ("ftp",)),
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path)


@pytest.mark.parametrize(("source", "says"), [each[1:] for each in SOURCES], ids=[each[0] for each in SOURCES])
def test_a_bad_image(source: Callable[[Desk], str], says: tuple[str, ...], desk: Desk) -> None:
    check(Case(name="scan", prepare=lambda at: ("scan", source(at)), says=says), desk)


def sign(*more: str) -> Callable[[Desk], tuple[object, ...]]:
    """Sign the shipped policy with `k.key`."""

    def prepare(desk: Desk) -> tuple[object, ...]:
        key(desk)
        return "policy", "sign", POLICY, "--key", "k.key", "--out", "signed", *more

    return prepare


def key(desk: Desk, *more: str) -> Path:
    """A new key, as `k.key`."""
    desk.fine("keys", "new", "k", *more)
    return desk.folder / "k.key"


def encrypted(desk: Desk) -> tuple[object, ...]:
    """Sign with the wrong passphrase."""
    (desk.folder / "right").write_text("right\n")
    (desk.folder / "wrong").write_text("wrong\n")
    key(desk, "--passphrase-file", "right")
    return "policy", "sign", POLICY, "--key", "k.key", "--passphrase-file", "wrong", "--out", "signed"


def readable(desk: Desk) -> tuple[object, ...]:
    """Sign with a key that others can read."""
    key(desk).chmod(0o644)
    return "policy", "sign", POLICY, "--key", "k.key", "--out", "signed"


def unknown_key(*words: object) -> Callable[[Desk], tuple[object, ...]]:
    """A policy with a key that there is not, as `policy.yaml`."""

    def prepare(desk: Desk) -> tuple[object, ...]:
        key(desk)
        (desk.folder / "policy.yaml").write_bytes(POLICY.read_bytes() + b"\nfrobnicate: 1\n")
        return words

    return prepare


def accounts(text: str, mode: int = 0o600) -> Callable[[Desk], tuple[object, ...]]:
    """The file of remembered accounts holds this."""

    def prepare(desk: Desk) -> tuple[object, ...]:
        path = desk.folder / "config" / "accounts.json"
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(mode)
        return "images", "127.0.0.1:1"

    return prepare


def settings(text: str) -> Callable[[Desk], tuple[object, ...]]:
    """The registry's settings are these."""

    def prepare(desk: Desk) -> tuple[object, ...]:
        (desk.folder / "registry.yaml").write_text(text)
        return "serve", "--config", "registry.yaml"

    return prepare


def words(*given: object) -> Callable[[Desk], tuple[object, ...]]:
    """Nothing is there."""
    return lambda _: given


def empty_store(*given: object) -> Callable[[Desk], tuple[object, ...]]:
    """The host's store is there, and empty."""

    def prepare(desk: Desk) -> tuple[object, ...]:
        desk.pratique("host", "show")
        return given

    return prepare


def taken(desk: Desk) -> tuple[object, ...]:
    """The file that is to be written is there."""
    (desk.folder / "signed").write_text("precious")
    return sign()(desk)


def state_file(content: str) -> Callable[[Desk], tuple[object, ...]]:
    """A container's state file holds this."""

    def prepare(desk: Desk) -> tuple[object, ...]:
        desk.fine("ps")
        folder = desk.state / "containers" / "web"
        folder.mkdir(mode=0o700)
        (folder / "lock").touch(0o600)
        (folder / "state").write_text(content)
        return "logs", "web"

    return prepare


CLOCK = ("clock: got ", "expected a time after 2026-01-01")
UNKNOWN = ("policy.yaml: ", "frobnicate", "unknown key", "expected one of", "levels")

CASES = (
    Case(
        name="approve-a-broken-tar",
        prepare=lambda desk: (
            *("approve", of_tar(bytes(1000))(desk), "--level", "base", "--key", key(desk), "--out", "approval"),
        ),
        says=("layer sha256:", "expected a multiple of 512"),
    ),
    Case(
        name="check-a-truncated-layer",
        prepare=lambda desk: (
            *("check", layout(lambda raw: raw[:-1])(desk), "--repository", "r.example/a", "--policy", POLICY),
            *("--trust", POLICY),
        ),
        says=(f"blob {BLOB}: size mismatch", f"want {SIZE}"),
    ),
    Case(name="sign-unknown-key", prepare=unknown_key("policy", "sign", "policy.yaml", "--key", "k.key"), says=UNKNOWN),
    Case(
        name="publish-no-envelope",
        prepare=unknown_key("policy", "publish", "127.0.0.1:1", "policy.yaml"),
        says=("policy.yaml: not JSON",),
    ),
    Case(name="lint-no-file", prepare=words("policy", "lint", "nowhere.yaml"), says=("nowhere.yaml: no such file",)),
    Case(
        name="sign-no-key", prepare=words("policy", "sign", POLICY, "--key", "no.key"), says=("no.key: No such file",)
    ),
    Case(name="sign-no-folder", prepare=sign("--out", "no/signed"), says=("no/signed: No such file",)),
    Case(name="sign-over-a-file", prepare=taken, says=("signed: exists already",), code=2),
    Case(name="wrong-passphrase", prepare=encrypted, says=("k.key: wrong passphrase",)),
    Case(name="key-readable-by-others", prepare=readable, says=("k.key: mode is 0644, expected 0600",)),
    Case(name="key-is-there", prepare=lambda desk: (key(desk), "keys", "new", "k")[1:], says=("k.key: exists",)),
    Case(name="clock-before-the-epoch", prepare=sign(), says=CLOCK, before=("faketime", "-f", "1960-01-01 00:00:00")),
    Case(name="clock-long-ago", prepare=sign(), says=CLOCK, before=("faketime", "-f", "1999-01-01 00:00:00")),
    Case(name="accounts-damaged", prepare=accounts('{"accounts": [{"reg'), says=("accounts.json: not JSON",)),
    Case(name="accounts-of-a-type", prepare=accounts('{"accounts": [7]}'), says=("accounts[0]", "expected an object")),
    Case(name="accounts-readable", prepare=accounts("{}", 0o640), says=("got mode 0640, expected 0600",)),
    Case(name="no-account", prepare=words("images", "127.0.0.1:1"), says=("registry 127.0.0.1:1: no account",)),
    Case(
        name="nobody-listens",
        prepare=words("login", "127.0.0.1:1", "--account", "a", "--plain-http"),
        send="secret\n",
        says=("127.0.0.1:1", "Connection refused"),
    ),
    Case(name="unknown-flag", prepare=words("scan", "--frob", "x"), says=("scan: ", "--frob", "--help"), code=2),
    Case(name="no-argument", prepare=words("approve"), says=("approve: ", "IMAGE", "--level", "--help"), code=2),
    Case(name="no-subverb", prepare=words("policy"), says=("policy: ", "lint|sign|show"), code=2),
    Case(
        name="no-number", prepare=words("policy", "floor", "x", "y"), says=("policy floor: ", "VERSION", "'y'"), code=2
    ),
    Case(
        name="no-size", prepare=words("run", "--memory", "lots", "r.example/a"), says=("size 'lots': expected",), code=2
    ),
    Case(name="trust-is-no-trust", prepare=words("trust", "show", POLICY), says=("default.yaml: not JSON",)),
    Case(name="not-enrolled", prepare=empty_store("verify", "r.example/a"), says=("store", "not enrolled")),
    Case(name="not-enrolled-run", prepare=empty_store("run", "r.example/a"), says=("store", "not enrolled"), code=125),
    Case(name="no-container", prepare=lambda desk: (desk.fine("ps"), "logs", "web")[1:], says=("container web: ",)),
    Case(name="state-damaged", prepare=state_file('{"name": "we'), says=("state of web: ", "not JSON")),
    Case(name="state-of-another-form", prepare=state_file('{"name": 1}'), says=("state of web: ", "expected")),
    Case(
        name="settings-unknown-key", prepare=settings("name: r.example\nfrob: 1\n"), says=("frob: unknown key", "data")
    ),
    Case(name="settings-no-yaml", prepare=settings("name: ["), says=("registry.yaml: settings: not YAML",)),
    Case(name="settings-missing", prepare=words("serve", "--config", "no.yaml"), says=("no.yaml: No such file",)),
    Case(
        name="settings-no-key",
        prepare=words("serve", "--print-key", "--config", POLICY),
        says=("default.yaml: setting ", "unknown key, expected one of"),
    ),
    Case(
        name="advisories-of-no-kind",
        prepare=words("advisories", "import", "--out", "snapshot", POLICY),
        says=("default.yaml: ", "neither"),
        code=2,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_file_key_setting_or_argument(case: Case, desk: Desk) -> None:
    if case.before:
        need(case.before[0])
    check(case, desk)


def test_an_unknown_verb(desk: Desk) -> None:
    one_line(desk.pratique("frobnicate"), 2, "'frobnicate'", "--help")


def test_lint_names_the_unknown_key(desk: Desk) -> None:
    """What lint finds is its answer, on standard output; the exit code says that it found something."""
    found = desk.pratique(*unknown_key("policy", "lint", "policy.yaml")(desk))
    assert found.code == 1
    assert "frobnicate: unknown key, expected one of" in found.out
