"""Verbs against a whole registry: accounts, approving, waiving, revoking, and the audit trail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pratique.calling import Office, call, good
from tests.pratique.test_documents import advisory_folder
from tests.support.images import BuiltImage, image

ACCOUNTS = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"


def a_base(marker: str) -> BuiltImage:
    """A base that no other test has."""
    return image([{"etc/": b"", "etc/passwd": ACCOUNTS, "etc/group": b"app:x:1000:\n", "base": marker.encode()}])


def on(base: BuiltImage, marker: str, **config: object) -> BuiltImage:
    """An application of one layer on it."""
    return image([{"srv/": b"", "srv/app": marker.encode()}], parent=base, **config)  # type: ignore[arg-type]  # config


def approve_base(office: Office, reference: str) -> None:
    """By both officers."""
    for owner in ("alice", "bob"):
        good("approve", reference, "--level", "base", "--key", office.key(owner))


def test_login_tries_a_secret_before_it_is_remembered(office: Office, tmp_path: Path) -> None:
    """A wrong one is not remembered."""
    wrong = call("login", office.address, "--account", "host", "--plain-http", stdin="wrong\n")
    assert (wrong.code, "unknown account or wrong secret" in wrong.err) == (1, True)
    assert call("login", office.address, "--account", "host", "--plain-http", stdin="\n").code == 2
    assert good("images", office.address, "--account", "host").code == 0


def test_a_used_token_makes_no_second_admin(office: Office) -> None:
    """R7: the bootstrap token counts once."""
    ran = call("login", office.address, "--bootstrap", "--account", "evil", "--plain-http", stdin=office.live.token)
    assert (ran.code, "no such token" in ran.err) == (1, True)


def test_accounts_are_made_listed_and_removed(office: Office) -> None:
    """The secret is printed once and works; a stranger to the role may not."""
    admin = ("--account", "admin")
    made = good("accounts", "add", office.address, "ci-1", "--role", "pusher", "--repository", "shop/*", *admin)
    assert len(made.out.splitlines()) == 1
    good("login", office.address, "--account", "ci-1", "--plain-http", stdin=made.out)
    listed = good("accounts", "list", office.address, *admin, "--json").json
    assert next(row for row in listed if row["name"] == "ci-1")["grants"] == ["shop/*"]
    refused = call("accounts", "list", office.address, "--account", "ci-1")
    assert (refused.code, "expected role admin" in refused.err) == (1, True)
    good("accounts", "remove", office.address, "ci-1", *admin)
    assert call("accounts", "remove", office.address, "ci-1", *admin).code == 1


def test_grants_say_which_rights(office: Office) -> None:
    """They are shown as they were given; what is none is refused."""
    admin = ("--account", "admin")
    add = ("accounts", "add", office.address, "ci-2", "--role", "pusher", *admin, "--grant")
    refused = call(*add, "shop/*:push")
    assert (refused.code, "expected some of pull, create, update, delete" in refused.err) == (1, True)
    good(*add, "shop/*:create,pull", "--grant", "base/*:pull")
    listed = good("accounts", "list", office.address, *admin).out
    assert "shop/*:pull,create base/*:pull" in next(row for row in listed.splitlines() if row.startswith("ci-2"))
    good("accounts", "remove", office.address, "ci-2", *admin)


def test_rules_are_set_listed_and_removed(office: Office) -> None:
    """By admins; officers may read them; each change is recorded with before and after."""
    admin = ("--account", "admin")
    rule = ("rules", "set", office.address, "immutable", "ruled/*")
    assert call(*rule, "--tag", "v*", "--account", "officer").code == 1
    assert call(*rule, *admin).code == 2
    assert "tags v*; except v*-rc" in good(*rule, "--tag", "v*", "--except", "v*-rc", *admin).out
    quota = ("rules", "set", office.address, "quota")
    assert call(*quota, "ruled/*", *admin).code == 2
    assert call(*quota, "ruled/*", "--bytes", "much", *admin).code == 2
    office.push("ruled/app", a_base("ruled"))
    said = good(*quota, "ruled/*", "--bytes", "20GiB", "--tags", "5", *admin).out
    assert "of 21.5 GB; tags 1 of 5" in said
    good(*quota, "ruled/*", "--bytes", "1kB", *admin)
    good(*quota, "account:ci", "--repositories", "2", *admin)
    listed = good("rules", "list", office.address, "--account", "officer").out
    assert "repositories 0 of 2" in listed
    rows = good("rules", "list", office.address, "--account", "officer", "--json").json
    assert [row["pattern"] for row in rows if row["kind"] == "quota"] == ["account:ci", "ruled/*"]
    for kind, pattern in (("immutable", "ruled/*"), ("quota", "ruled/*"), ("quota", "account:ci")):
        good("rules", "remove", office.address, kind, pattern, *admin)
    assert call("rules", "remove", office.address, "quota", "ruled/*", *admin).code == 1
    trail = good("audit", "show", office.address, "--event", "rule", "--account", "auditor").out.splitlines()
    assert len(trail) == 7
    assert 'quota ruled/*: {"bytes":21474836480,"tags":5} -> {"bytes":1000}' in trail[2]
    assert trail[-1].endswith('{"repositories":2} -> removed')


def test_an_image_is_approved_by_two_and_its_application_by_its_team(office: Office) -> None:
    """Denied, one of two, cleared; then the layer above it; and every step says what is missing."""
    base = a_base("two")
    reference = office.push("two/base", base)
    before = call("status", reference, "--wait")
    assert (before.code, "no-approved-parent" in before.out) == (3, True)
    first = good("approve", reference, "--level", "base", "--key", office.key("alice"))
    assert "wants 2 officers; counted: alice" in first.out
    assert "root index" in first.err
    good("approve", reference, "--level", "base", "--key", office.key("bob"))
    assert good("status", reference, "--wait", "--json").json["level"] == "base"
    application = office.push("two/app", on(base, "two"))
    assert call("status", application, "--wait").code == 3
    good("approve", "--layer", application, "--level", "application", "--key", office.key("team"))
    assert good("status", application, "--wait").out.startswith("cleared: ")
    assert "passed: " in good("explain", application).out
    found = good("images", office.address, "--repository", "two/*", "--state", "cleared", "--json").json
    assert sorted(row["repository"] for row in found) == ["two/app", "two/base"]


def test_s11_approved_layers_under_another_command_are_explained(office: Office) -> None:
    """The config is content too; explain names the rule, and status ends with 3."""
    base = a_base("s11")
    approve_base(office, office.push("s11/base", base))
    reference = office.push("s11/evil", on(base, "evil", entrypoint=("/bin/evil",)))
    good("approve", "--layer", "--top", 1, reference, "--level", "application", "--key", office.key("team"))
    assert call("status", reference, "--wait").code == 3
    assert "refused: config: config-not-approved" in good("explain", reference).out


def test_a_level_that_the_policy_lacks_is_wrong_usage(office: Office) -> None:
    """Nothing is signed for it."""
    reference = office.push("level/base", a_base("level"))
    ran = call("approve", reference, "--level", "bse", "--key", office.key("alice"))
    assert (ran.code, "expected one of base, application" in ran.err) == (2, True)


def test_a_team_key_approves_no_base(office: Office) -> None:
    """The registry refuses the statement, and says why."""
    reference = office.push("team/base", a_base("team"))
    ran = call("approve", reference, "--level", "base", "--key", office.key("team"))
    assert (ran.code, "may not approve for level base" in ran.err) == (1, True)


def test_layers_above_an_unknown_parent_are_not_guessed(office: Office) -> None:
    """--layer without a selection needs the parent; a number beyond the layers is refused."""
    reference = office.push("guess/app", a_base("guess"))
    layer = ("approve", "--layer", reference, "--level", "application", "--key", office.key("team"))
    assert (call(*layer).code, call(*layer, "--top", 9).code) == (2, 2)
    assert "expected --top" in call(*layer).err


def test_an_approval_is_written_for_an_image_that_is_in_no_registry(office: Office, tmp_path: Path) -> None:
    """A SOURCE of any kind; the same statement can be handed in later."""
    base = a_base("layout")
    base.write_layout(tmp_path / "layout", "1")
    source, out = f"oci:{tmp_path / 'layout'}:1", tmp_path / "approval"
    arguments = ("approve", source, "--level", "base", "--key", office.key("alice"))
    assert call(*arguments).code == 2
    good(*arguments, "--out", out)
    assert b"payloadType" in out.read_bytes()


def test_a_waiver_is_taken_and_withdrawn(office: Office) -> None:
    """The digest that the verb prints is the one by which it is withdrawn."""
    scope = f"{office.address}/waive/**"
    made = good(
        *("waive", "--registry", office.address, "--rule", "components", "--component", "pkg:deb/debian/bad@**"),
        *("--scope", scope, "--until", "30d", "--reason", "not reachable", "--ticket", "T-1", "--owner", "alice"),
        *("--key", office.key("alice"), "--json"),
    ).json
    assert made["type"] == "Waiver"
    withdraw = ("revoke", "--registry", office.address, "--withdraw", made["statement"], "--reason", "fixed")
    assert good(*withdraw, "--key", office.key("bob"), "--json").json["type"] == "Withdrawal"


def test_a_revoked_base_takes_its_application_with_it(office: Office, tmp_path: Path) -> None:
    """One officer is too few; a list is continued by the second; lifting it needs a newer one."""
    base = a_base("revoke")
    base_reference = office.push("revoke/base", base)
    approve_base(office, base_reference)
    reference = office.push("revoke/app", on(base, "revoke"))
    good("approve", "--layer", reference, "--level", "application", "--key", office.key("team"))
    assert good("status", reference, "--wait").code == 0
    revoke = ("revoke", "--digest", base_reference, "--reason", "backdoor", "--trust", office.folder / "trust.json")
    alone = call(*revoke, "--key", office.key("alice"))
    assert (alone.code, "expected 2 owners" in alone.err) == (1, True)
    draft = tmp_path / "list"
    good(*revoke, "--key", office.key("alice"), "--out", draft)
    done = good("revoke", "--continue", draft, "--key", office.key("bob"), "--registry", office.address)
    assert "backdoor" in done.out
    office.live.until("revoke/app", "1", "revoked")
    ran = call("status", reference, "--wait")
    assert (ran.code, ran.out.startswith("revoked: ")) == (3, True)
    office.live.until("revoke/base", "1", "revoked")
    entries = _listed(office, 3)  # manifest, config, chain ID
    lift = [part for entry in entries for part in ("--lift", entry)]
    both = ("--key", office.key("alice"), "--key", office.key("bob"))
    good("revoke", "--registry", office.address, *lift, "--reason", "was another image", *both)
    office.live.until("revoke/app", "1", "cleared")


def _listed(office: Office, count: int) -> list[str]:
    """The entries of the list in force, once it has so many: it is served when the signer has dated it."""
    for _ in range(200):
        shown = good("revoke", "--registry", office.address, "--list", "--json").json
        if len(shown["entries"]) == count:
            return [entry["entry"] for entry in shown["entries"]]
        office.live.status("revoke/base", "1")
    raise AssertionError(shown)


@pytest.mark.parametrize("arguments", [("--digest", "sha256:12"), ("--component", "***"), ("--layer", "latest")])
def test_what_names_nothing_is_not_revoked(office: Office, arguments: tuple[str, str]) -> None:
    """An entry that matches nothing would look like safety."""
    both = ("--key", office.key("alice"), "--key", office.key("bob"))
    assert call("revoke", "--registry", office.address, *arguments, "--reason", "r", *both).code == 1


def test_the_audit_trail_is_whole_and_a_decision_comes_out_the_same(office: Office) -> None:
    """show, verify with trust.json from elsewhere, and recompute."""
    reference = office.push("audit/base", a_base("audit"))
    approve_base(office, reference)
    auditor = ("--account", "auditor")
    lines = good("audit", "show", office.address, *auditor).out.splitlines()
    assert any("ImageApproval" in line and "officer" in line for line in lines)
    last = int(lines[-1].split()[0])
    assert len(good("audit", "show", office.address, "--after", last - 1, *auditor).out.splitlines()) >= 1
    trust = ("--trust", office.folder / "trust.json")
    assert "sound" in good("audit", "verify", office.address, *trust, *auditor).out
    same = good("audit", "recompute", reference, *trust, "--json", *auditor).json
    assert same["same"]
    digest = same["here"]["image"]
    good("audit", "recompute", office.address, digest, *trust, *auditor)
    assert call("audit", "show", office.address, "--account", "officer").code == 1


def test_advisories_are_handed_in_and_counted(office: Office, tmp_path: Path) -> None:
    """The registry has imported them when the verb ends."""
    data = advisory_folder(tmp_path / "data")
    ran = good("advisories", "import", office.address, data, "--account", "scanner", "--json")
    assert {row["name"]: row["records"] for row in ran.json} == {"osv Debian": 1, "kev": 1}
    refused = call("advisories", "import", office.address, data, "--account", "officer")
    assert refused.code == 1


def test_a_newer_trust_and_policy_are_published(office: Office, tmp_path: Path) -> None:
    """The registry's own are shown; a policy of one signature is refused."""
    assert good("trust", "show", office.address, "--json").json["version"] == 1
    assert good("policy", "show", office.address, "--json").json["version"] == 1
    policy = tmp_path / "policy.yaml"
    document = good("policy", "show", office.address, "--document").out
    policy.write_text(document.replace("version: 1", "version: 2", 1))
    good("policy", "sign", policy, "--key", office.key("alice"), "--out", tmp_path / "signed")
    refused = call("policy", "publish", office.address, tmp_path / "signed")
    assert (refused.code, "expected 2 owners" in refused.err) == (1, True)
    good("policy", "sign", tmp_path / "signed", "--key", office.key("bob"))
    good("policy", "publish", office.address, tmp_path / "signed")
    both = ("--key", office.key("alice"), "--key", office.key("bob"))
    good("policy", "floor", "default", 2, "--registry", office.address, *both)
    assert call("policy", "floor", "default", 1, "--registry", office.address, *both).code == 1
    good("trust", "publish", office.address, office.folder / "trust.json")


def test_an_image_that_is_not_there_is_one_clear_line(office: Office) -> None:
    """And 1, not 3: nothing was decided."""
    ran = call("status", f"{office.address}/no/such:1")
    assert (ran.code, len(ran.err.splitlines()), "not known" in ran.err) == (1, 1, True)
