"""scan, inspect and check: an image read whole where the developer is, without a registry and under one's terms."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.seal import seal
from policy.statements import RevocationList
from scanner.advisories.build import import_sources
from scanner.advisories.sources import sources_in
from tests.pratique.calling import Office, call, good
from tests.support.images import BuiltImage, Content, File, image
from tests.support.packages import Deb, Wheel, dpkg_files, os_release, python_files

ADVISORIES = Path(__file__).parent.parent / "assets" / "advisories"
BASE_FILES: dict[str, Content] = {
    **os_release(),
    **dpkg_files([Deb(name="bash", version="5.2.37-2", files={"usr/bin/bash": b"#!"}, licence="GPL-3+")]),
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
}


@pytest.fixture(scope="module")
def base() -> BuiltImage:
    """A base with one Debian package."""
    return image([BASE_FILES], entrypoint=["/srv/main"])


@pytest.fixture(scope="module")
def advisories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of the hand-written records, imported now."""
    from pratique.clock import now

    target = tmp_path_factory.mktemp("data") / "advisories.db"
    import_sources(sources_in(ADVISORIES), target, now=now())
    return target


def layout(tmp_path: Path, built: BuiltImage) -> str:
    """`built` as an OCI layout; its SOURCE."""
    return f"oci:{built.write_layout(tmp_path / 'layout', 'x')}:x"


def with_salt(base: BuiltImage) -> BuiltImage:
    """An application that brings a known-exploited package."""
    files: dict[str, Content] = {"srv/main": File(b"#!/bin/sh\n", mode=0o755)}
    return image([files | python_files(Wheel(name="salt", version="3000.1"))], parent=base, user="1000")


def test_scan_shows_components_findings_and_time(tmp_path: Path, base: BuiltImage, advisories: Path) -> None:
    shown = good("scan", layout(tmp_path, with_salt(base)), "--advisories", advisories).out
    assert "1 deb, 1 pypi" in shown
    assert "GPL-3.0-or-later" in shown
    assert "PYSEC-2020-102" in shown
    assert "3000.2" in shown
    assert "ms to read" in shown


def test_scan_without_advisories_calls_findings_unknown(tmp_path: Path, base: BuiltImage) -> None:
    shown = good("scan", layout(tmp_path, base), "--all").out
    assert "findings: unknown, no advisory data given" in shown
    assert "unsupported-ecosystem" in shown
    assert "bash" in shown


@pytest.mark.parametrize(
    ("form", "mark"),
    [("json", ("scanner_version",)), ("cyclonedx", ("bomFormat",)), ("spdx", ("spdxVersion",))],
)
def test_scan_writes_documents(tmp_path: Path, base: BuiltImage, form: str, mark: tuple[str, ...]) -> None:
    source = layout(tmp_path, base)
    document = good("scan", source, "--format", form).json
    assert set(mark) <= set(document)
    good("scan", source, "--format", form, "--output", tmp_path / "out")
    assert "bash" in (tmp_path / "out").read_text()
    assert call("scan", source, "--output", tmp_path / "table").code == 1


def test_inspect_says_what_would_run(tmp_path: Path, base: BuiltImage) -> None:
    source = layout(tmp_path, base)
    facts = good("inspect", source, "--json").json
    assert (facts["manifest"], facts["entrypoint"]) == (str(base.digest), ["/srv/main"])
    assert facts["layers"][0]["writes_package_database"] is True
    assert facts["root_index"].startswith("sha256:")
    text = good("inspect", source).out
    assert facts["root_index"] in text
    tree = good("inspect", source, "--tree").out
    assert "/usr/bin/bash" in tree
    assert "drwxr-xr-x" in tree


def test_inspect_reads_every_kind_of_source_alike(tmp_path: Path, base: BuiltImage) -> None:
    archive = base.write_docker_archive(tmp_path / "image.tar")
    folder = base.write_dir(tmp_path / "dir")
    found = {
        good("inspect", source, "--json").json["root_index"]
        for source in (layout(tmp_path, base), f"docker-archive:{archive}", f"dir:{folder}")
    }
    assert len(found) == 1


def test_a_path_that_would_steer_a_terminal_is_escaped(tmp_path: Path) -> None:
    hostile = image([{"etc/\x1b[2Jcleared": b"x"}])
    tree = good("inspect", layout(tmp_path, hostile), "--tree").out
    assert "\x1b" not in tree
    assert "\\x1b[2Jcleared" in tree


def test_check_before_the_push_is_what_the_registry_would_say(
    tmp_path: Path, office: Office, base: BuiltImage, advisories: Path
) -> None:
    terms = ("--registry", office.address, "--account", "officer", "--advisories", advisories)
    source = layout(tmp_path, base)
    denied = call("check", source, "--repository", "check/base", *terms)
    assert denied.code == 3
    assert "hierarchy: no-approved-parent" in denied.out
    reference = office.push("check/base", base)
    for name in tuple(office.live.ring.officers)[:2]:
        good("approve", reference, "--level", "base", "--key", office.key(name))
    cleared = call("check", source, "--repository", "check/base", *terms, "--json")
    assert (cleared.code, cleared.json["state"]) == (0, "cleared"), cleared
    assert call("check", reference, "--account", "officer", "--advisories", advisories).code == 0
    salted = layout(tmp_path / "salt", with_salt(base))
    own = tmp_path / "layer.approval"
    team = ("--level", "application", "--top", "1", "--key", office.key("team"), "--out", own)
    good("approve", "--layer", salted, *team)
    shipped = tmp_path / "policy.yaml"
    shipped.write_text(good("policy", "default").out)
    exploited = call("check", salted, "--repository", "check/app", "--statement", own, "--policy", shipped, *terms)
    assert exploited.code == 3
    assert "known-exploited" in exploited.out


def test_check_without_a_registry(tmp_path: Path, office: Office, base: BuiltImage, advisories: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(good("policy", "default").out)
    source = layout(tmp_path, base)
    files = ("--policy", policy, "--trust", office.folder / "trust.json", "--advisories", advisories)
    ran = call("check", source, "--repository", "check/base", *files)
    assert ran.code == 3
    assert "no-revocation-list" in ran.out
    for missing in (("--policy", policy), ("--trust", office.folder / "trust.json")):
        assert call("check", source, "--repository", "check/base", *missing).code == 2
    assert call("check", source, *files).code == 2, "without a repository it cannot be judged"


def test_check_counts_statements_in_files(tmp_path: Path, office: Office, base: BuiltImage, advisories: Path) -> None:
    from pratique.clock import now

    source = layout(tmp_path, base)
    approvals = []
    for name in tuple(office.live.ring.officers)[:2]:
        approvals.append(tmp_path / f"{name}.approval")
        good("approve", source, "--level", "base", "--key", office.key(name), "--out", approvals[-1])
    listed = tmp_path / "list"
    empty = RevocationList(number=1, digests=(), layers=(), components=(), keys=(), reason="first", issued=now())
    listed.write_bytes(seal(empty, *office.live.ring.officers.values()))
    statements = [part for path in approvals for part in ("--statement", path)]
    policy = tmp_path / "policy.yaml"
    policy.write_text(good("policy", "default").out.replace("required: true", "required: false"))
    files = ("--policy", policy, "--trust", office.folder / "trust.json", "--advisories", advisories)
    ran = call("check", source, "--repository", "check/base", *files, *statements)
    assert ran.code == 0, ran
