"""Verbs that need no registry: trust, policy, advisories into a file, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pratique.__main__ import VERBS
from pratique.trustspec import EXAMPLE
from tests.pratique.calling import call, good


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the keys that the example specification names."""
    for name in ("rita", "ron", "alice", "bob", "web", "registry"):
        good("keys", "new", tmp_path / name)
    (tmp_path / "spec.yaml").write_text(EXAMPLE)
    return tmp_path


def make_trust(folder: Path, *owners: str, out: str = "trust.json") -> Path:
    """The example's trust.json, signed by these roots."""
    signing = [part for owner in owners for part in ("--key", folder / f"{owner}.key")]
    good("trust", "new", folder / "spec.yaml", *signing, "--out", folder / out)
    return folder / out


ADDRESSED = (
    "accounts",
    "advisories",
    "approve",
    "audit",
    "explain",
    "images",
    "login",
    "revoke",
    "rules",
    "status",
    "waive",
)


@pytest.mark.parametrize("verb", [*ADDRESSED, "policy", "serve", "trust"])
def test_every_verb_has_a_help_with_an_example(verb: str) -> None:
    """What `pratique --help` names is there, and shows how it is called."""
    assert verb in {name for _, verbs in VERBS for name, _ in verbs}
    ran = call(verb, "--help")
    assert ran.code == 0
    assert f"pratique {verb} " in ran.out.partition("\n\n")[2]


def test_the_example_specification_makes_a_trust_json(keys: Path) -> None:
    """Signed by one root it is not in force, by two it is."""
    trust = make_trust(keys, "rita")
    shown = good("trust", "show", trust, "--json").json
    assert not shown["in_force"]
    assert "expected 2 owners" in shown["problem"]
    good("trust", "sign", trust, "--key", keys / "ron.key")
    shown = good("trust", "show", trust, "--json").json
    assert shown["in_force"]
    assert [key["owner"] for key in shown["keys"]][:2] == ["rita", "ron"]


def test_an_unknown_name_in_a_specification_is_refused(keys: Path) -> None:
    """A misspelt threshold must not silently be none."""
    (keys / "spec.yaml").write_text(EXAMPLE.replace("list_threshold", "list_treshold"))
    ran = call("trust", "new", keys / "spec.yaml", "--key", keys / "rita.key", "--out", keys / "trust.json")
    assert ran.code == 2
    assert "list_treshold" in ran.err
    assert not (keys / "trust.json").exists()


def test_a_trust_json_is_not_written_over(keys: Path) -> None:
    """Only with --replace."""
    trust = make_trust(keys, "rita", "ron")
    before = trust.read_bytes()
    again = ("trust", "new", keys / "spec.yaml", "--key", keys / "ron.key", "--out", trust)
    assert call(*again).code == 2
    assert trust.read_bytes() == before
    good(*again, "--replace")


def test_a_newer_trust_json_keeps_when_keys_began(keys: Path) -> None:
    """Else everything that was signed under the old one would stop counting."""
    old = make_trust(keys, "rita", "ron")
    begins = {key["id"]: key["not_before"] for key in good("trust", "show", old, "--json").json["keys"]}
    same = call(
        "trust", "new", keys / "spec.yaml", "--after", old, "--key", keys / "rita.key", "--out", keys / "next.json"
    )
    assert (same.code, "expected more than 1" in same.err) == (2, True)
    (keys / "spec.yaml").write_text(EXAMPLE.replace("version: 1 ", "version: 2 "))
    signing = ("--key", keys / "rita.key", "--key", keys / "ron.key")
    good("trust", "new", keys / "spec.yaml", "--after", old, *signing, "--out", keys / "next.json")
    newer = good("trust", "show", keys / "next.json", "--json").json
    assert newer["version"] == 2
    assert {key["id"]: key["not_before"] for key in newer["keys"]} == begins


def test_podman_files_are_exported(keys: Path) -> None:
    """policy.json rejects all else; the registries.d file asks for signatures."""
    trust = make_trust(keys, "rita", "ron")
    where = ("--registry", "registry.example:5000", "--out", keys / "containers")
    good("trust", "export", "--podman", "--trust", trust, *where)
    policy = json.loads((keys / "containers" / "policy.json").read_text())
    assert policy["default"] == [{"type": "reject"}]
    assert (keys / "containers" / "registries.d" / "registry.example_5000.yaml").is_file()
    assert call("trust", "export", "--podman", "--trust", trust, *where).code == 2
    assert call("trust", "export", "--podman", "--trust", trust, "--registry", "other:1", "--out", keys).code == 1


def test_the_shipped_policy_is_without_fault(keys: Path) -> None:
    """What `default` prints, `lint` and `sign` take; each signature adds to the envelope."""
    policy = keys / "policy.yaml"
    policy.write_text(good("policy", "default").out)
    assert good("policy", "lint", policy, "--strict", "--json").json == []
    good("policy", "sign", policy, "--key", keys / "alice.key")
    signed = keys / "policy.yaml.signed"
    assert len(good("policy", "sign", signed, "--key", keys / "bob.key", "--json").json["keys"]) == 2
    trust = make_trust(keys, "rita", "ron")
    shown = good("policy", "show", signed, "--trust", trust, "--json").json
    assert {found["signer"] for found in shown["signatures"]} == {"alice (officer)", "bob (officer)"}
    assert good("policy", "show", signed, "--document").out == policy.read_text()


def test_a_policy_with_an_unknown_key_is_not_signed(keys: Path) -> None:
    """lint ends with 1, and sign writes nothing."""
    policy = keys / "policy.yaml"
    policy.write_text(good("policy", "default").out + "rulez: []\n")
    ran = call("policy", "lint", policy)
    assert (ran.code, "rulez" in ran.out) == (1, True)
    assert call("policy", "sign", policy, "--key", keys / "alice.key").code == 1
    assert not (keys / "policy.yaml.signed").exists()


def test_a_signed_statement_of_another_kind_is_no_policy(keys: Path) -> None:
    """A trust.json does not become a policy by being countersigned as one."""
    trust = make_trust(keys, "rita", "ron")
    ran = call("policy", "sign", trust, "--key", keys / "alice.key")
    assert (ran.code, "expected a policy" in ran.err) == (2, True)


def advisory_folder(folder: Path) -> Path:
    """A folder in the layout of the public exports, with one bad record."""
    records = folder / "osv" / "Debian"
    records.mkdir(parents=True)
    affected = [
        {
            "package": {"ecosystem": "Debian:13", "name": "nothing"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0-1"}]}],
        }
    ]
    good_one = {"schema_version": "1.6.0", "id": "T-1", "modified": "2026-01-01T00:00:00Z", "affected": affected}
    (records / "T-1.json").write_text(json.dumps(good_one))
    (records / "bad.json").write_text('{"id": 3}')
    (folder / "kev").mkdir()
    kev = {"vulnerabilities": [{"cveID": "CVE-2026-0001", "dateAdded": "2026-01-01"}]}
    (folder / "kev" / "kev.json").write_text(json.dumps(kev))
    return folder


def test_advisories_become_a_snapshot(tmp_path: Path) -> None:
    """What could not be read is named, and counted in the snapshot."""
    snapshot = tmp_path / "snapshot.sqlite"
    ran = good("advisories", "import", "--out", snapshot, advisory_folder(tmp_path / "data"), "--json")
    assert [(row["name"], row["records"], row["broken"]) for row in ran.json] == [("osv Debian", 1, 1), ("kev", 1, 0)]
    assert "bad.json" in ran.err
    assert good("advisories", "status", snapshot, "--json").json == ran.json


def test_a_single_file_says_itself_what_it_is(tmp_path: Path) -> None:
    """Or a prefix does; what cannot be told is refused."""
    data = advisory_folder(tmp_path / "data")
    ran = good("advisories", "import", "--out", tmp_path / "a", data / "kev" / "kev.json", "--json")
    assert [row["name"] for row in ran.json] == ["kev"]
    (tmp_path / "what.json").write_text("{}")
    assert call("advisories", "import", "--out", tmp_path / "b", tmp_path / "what.json").code == 2
    ran = call("advisories", "import", "--out", tmp_path / "b", f"kev={tmp_path / 'what.json'}")
    assert (ran.code, "no record" in ran.err) == (1, True)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("time", ["0d", "90", "2020-01-01", "soon"])
def test_an_end_that_means_nothing_is_wrong_usage(keys: Path, time: str) -> None:
    """Before a key is read, or anything is signed."""
    waive = ("waive", "--rule", "exploited", "--scope", "r:1/**", "--reason", "r", "--ticket", "t", "--owner", "o")
    assert call(*waive, "--until", time, "--key", keys / "alice.key", "--out", keys / "w").code == 2


def test_a_waiver_of_everything_is_refused(keys: Path) -> None:
    """`*` for any advisory of any component would be no exception but a switch."""
    waive = ("waive", "--scope", "r:1/**", "--reason", "r", "--ticket", "t", "--owner", "o", "--until", "30d")
    ran = call(*waive, "--rule", "*", "--key", keys / "alice.key", "--out", keys / "w")
    assert ran.code == 1
    assert not (keys / "w").exists()
    good(*waive, "--rule", "exploited", "--key", keys / "alice.key", "--out", keys / "w")


def test_without_an_account_the_verb_says_how_to_get_one() -> None:
    """One clear line, and no connection."""
    ran = call("images", "registry.example:5000")
    assert (ran.code, "pratique login registry.example:5000" in ran.err) == (1, True)


def test_plain_http_is_for_this_machine_alone() -> None:
    """A secret is never sent to another machine in the clear."""
    ran = call("login", "registry.example:5000", "--account", "a", "--plain-http", stdin="secret\n")
    assert (ran.code, "expected a loopback address" in ran.err) == (1, True)
