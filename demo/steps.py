"""The demo's steps, in order. Each runs what a person in that role would run, and checks that it came out so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from demo.catalogue import APPLICATION, DENIED, ENTRYPOINT, PATH, USER
from demo.images import Layout, debian_root
from demo.stage import DemoFailedError, Stage
from demo.storage import S3, Files

PORT = int(os.environ.get("DEMO_PORT", "5443"))
REGISTRY = f"127.0.0.1:{PORT}"
BASE = f"{REGISTRY}/base/debian:13"
APP = f"{REGISTRY}/shop/web:1"
ADVISORIES = Path(__file__).parent.parent / "tests" / "assets" / "advisories"
POLICY = Path(__file__).parent.parent / "policies" / "default.yaml"

REGISTRY_YAML = f"""\
name: "{REGISTRY}"
data: FOLDER/registry
trust: FOLDER/trust.json
policy: FOLDER/policy.signed
http: {{listen: "{REGISTRY}"}}
users: {{signer: "64041"}}
"""

TRUST_YAML = f"""\
version: 1
expires: 365d
root_threshold: 2
list_threshold: 2
registries: ["{REGISTRY}"]
policies:
  - {{name: default, threshold: 2}}
keys:
  - {{file: rita.pub, role: root, owner: rita}}
  - {{file: ron.pub, role: root, owner: ron}}
  - {{file: rose.pub, role: root, owner: rose}}
  - {{file: alice.pub, role: officer, owner: alice, levels: [base, middleware, application]}}
  - {{file: bob.pub, role: officer, owner: bob, levels: [base, middleware, application]}}
  - {{file: shop.pub, role: team, owner: shop, levels: [application]}}
  - {{file: registry.pub, role: registry, owner: "{REGISTRY}"}}
"""


def keys_and_registry(stage: Stage, storage: Files | S3) -> None:
    """Step 1, first half: keys, trust.json, a signed policy, and where blobs will be."""
    stage.step("Keys, trust.json, a signed policy, and a registry")
    for name in ("rita", "ron", "rose", "alice", "bob", "shop"):
        stage.pratique("keys", "new", name, show=False)
    stage.say("made keys of three root key holders (rita, ron, rose), two officers (alice, bob) and a team (shop)")
    settings = stage.folder / "registry.yaml"
    settings.touch(mode=0o600)  # a secret can stand there
    settings.write_text(REGISTRY_YAML.replace("FOLDER", str(stage.folder)) + storage.settings())
    storage.start(stage)
    key = stage.pratique("serve", "--config", "registry.yaml", "--print-key", quiet=True)
    (stage.folder / "registry.pub").write_text(key.out)
    (stage.folder / "trust.yaml").write_text(TRUST_YAML)
    stage.pratique(
        "trust", "new", "trust.yaml", "--key", "rita.key", "--key", "ron.key", "--out", "trust.json", quiet=True
    )
    stage.pratique("trust", "show", "trust.json")
    stage.pratique("policy", "lint", POLICY)
    signers = ("--key", "alice.key", "--key", "bob.key")
    stage.pratique("policy", "sign", POLICY, *signers, "--out", "policy.signed", quiet=True)


def start_registry(stage: Stage) -> subprocess.Popen[bytes]:
    """Step 1: the registry, on loopback, with SQLite, once its settings are found to be good."""
    stage.pratique("serve", "--config", "registry.yaml", "--check")
    log = stage.folder / "registry.log"
    process = stage.start(_pratique(), "serve", "--config", "registry.yaml", log=log)
    deadline = time.monotonic() + 60
    while "ready at" not in (text := log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailedError(f"the registry did not get ready:\n{text}")
        time.sleep(0.05)
    stage.say("    " + next(line for line in text.splitlines() if "ready at" in line))
    return process


def accounts_and_host(stage: Stage) -> None:
    """Step 1, second half: one-time credentials, accounts, advisories, and this host enrolled."""
    log = (stage.folder / "registry.log").read_text()
    token = next(line.rpartition(": ")[2] for line in log.splitlines() if line.startswith("bootstrap token"))
    stage.pratique(
        "login", REGISTRY, "--bootstrap", "--account", "admin", "--plain-http", send=token + "\n", quiet=True
    )
    for name, role in (("dev", "pusher"), ("alice", "officer"), ("carol", "auditor"), ("host-1", "host")):
        made = stage.pratique(
            "accounts", "add", REGISTRY, name, "--role", role, "--account", "admin", "--json", quiet=True
        )
        secret = json.loads(made.out)["secret"]
        if role == "host":
            enrol = ("host", "enrol", REGISTRY, "--trust", "trust.json", "--account", name, "--plain-http")
            # There is no revocation list yet: officers sign the first one, and hosts start nothing before it.
            (stage.folder / "host-secret").write_text(secret)
            stage.pratique("login", REGISTRY, "--account", name, "--plain-http", send=secret + "\n", show=False)
        else:
            stage.pratique("login", REGISTRY, "--account", name, "--plain-http", send=secret + "\n", show=False)
        if role == "pusher":
            stage.run(
                *("skopeo", "login", "--tls-verify=false", "--username", name, "--password-stdin", REGISTRY),
                send=secret,
                quiet=True,
            )
    stage.pratique("advisories", "import", REGISTRY, ADVISORIES, "--account", "admin")
    revoke = ("revoke", "--registry", REGISTRY, "--reason", "the first list", "--account", "alice")
    stage.pratique(*revoke, "--key", "alice.key", "--key", "bob.key", quiet=True)
    stage.pratique(*enrol, send=(stage.folder / "host-secret").read_text() + "\n")


def images(stage: Stage, given: str, storage: Files | S3) -> None:
    """Step 2: a real base, an application on it, both pushed with a client that knows nothing of us."""
    stage.step("A Debian base and an application, pushed with skopeo")
    layout = Layout(stage.folder / "build")
    if given:
        stage.say(f"taking {given} as the base")
        layout.take_base("given", given)
    else:
        stage.say("making a Debian root file system with mmdebstrap")
        tar = stage.folder / "root.tar"
        debian_root(tar)
        layout.add_base("given", tar)
        tar.unlink()
    layout.derive("given", "base", {}, Entrypoint=ENTRYPOINT, Cmd=[], Env=[PATH])
    layout.derive("base", "app", APPLICATION, User=USER)
    for tag, target in (("base", BASE), ("app", APP)):
        _push(stage, tag, target)
    storage.look(stage)


def quarantined(stage: Stage) -> None:
    """Step 3: a host may not pull, and the answer says why."""
    stage.step("Both are quarantined: a host may not pull, and is told why")
    for image in (BASE, APP):
        stage.pratique("pull", image, "--quiet", expect=3)
    stage.pratique("status", APP, "--account", "dev", expect=3)


def scanned(stage: Stage) -> None:
    """Step 4: what is in them."""
    stage.step("What is in them: components, licences, findings, and how long it took")
    stage.pratique("advisories", "import", "--out", "advisories.db", ADVISORIES, quiet=True)
    for tag in ("base", "app"):
        stage.pratique("scan", f"oci:build:{tag}")


def approved(stage: Stage) -> None:
    """Step 5: the base by two keys, the application's layer by its team's."""
    stage.step("Two officers approve the base; the application's team approves its own layer")
    account = ("--account", "alice")
    stage.pratique("approve", BASE, "--level", "base", "--key", "alice.key", "--until", "90d", *account)
    stage.pratique("approve", BASE, "--level", "base", "--key", "bob.key", "--until", "90d", *account)
    stage.pratique(
        *(
            "approve",
            "--layer",
            APP,
            "--level",
            "application",
            "--key",
            "shop.key",
            "--until",
            "90d",
            "--account",
            "dev",
        )
    )
    stage.pratique("status", APP, "--wait", "20", "--account", "dev")
    stage.pratique("explain", APP, "--account", "dev")


def denied(stage: Stage) -> None:
    """Step 6: six images, each denied for its own reason."""
    stage.step("Six images that are denied, each for its own reason")
    layout = Layout(stage.folder / "build")
    for image in DENIED:
        stage.say(f"\n-- {image.wrong}")
        if image.parent:
            layout.derive(image.parent, image.name, image.files, **{"User": USER, **image.run})
        else:
            layout.start(image.name, image.files, User=USER, Entrypoint=ENTRYPOINT, Env=[PATH])
        target = f"{REGISTRY}/shop/{image.name}:1"
        _push(stage, image.name, target)
        if image.files:
            layer = ("approve", "--layer", target, "--top", "1", "--level", "application", "--key", "shop.key")
            stage.pratique(*layer, "--until", "90d", "--account", "dev", quiet=True)
        stage.pratique("status", target, "--wait", "20", "--account", "dev", expect=3, quiet=True)
        told = stage.pratique("explain", target, "--account", "dev")
        if image.reason not in told.out:
            raise DemoFailedError(f"{target}: expected the reason {image.reason}, got:\n{told.out}")


def served_and_run(stage: Stage) -> None:
    """Step 7: a denied image under the cleared tag changes nothing for hosts; the tag runs."""
    stage.step("A denied image is pushed to the cleared tag; hosts are still served the cleared one, and run it")
    _push(stage, "outdated", APP)
    stage.pratique("status", APP, "--wait", "20", "--account", "dev", expect=3, quiet=True)
    stage.pratique("pull", APP, "--quiet")
    stage.pratique("run", "--detach", "--name", "web", "--hostname", "web-1", "--memory", "64m", APP)
    time.sleep(1)
    stage.pratique("ps")
    seen = stage.pratique("logs", "web")
    for fact in ("pid                1\n", "web-1", "67108864", "effective 0000000000000000", "read-only"):
        if fact not in seen.out:
            raise DemoFailedError(f"inside the container: expected {fact!r} in what the program saw:\n{seen.out}")


def flipped(stage: Stage) -> None:
    """Step 8: one byte of a stored layer is another; the next start is refused."""
    stage.step("One byte of a stored layer is flipped: the next start is refused")
    layer = max((stage.folder / "host" / "layers").glob("*.tar"), key=lambda path: path.stat().st_size)
    position = layer.stat().st_size // 2
    stage.say(f"flipping a bit of byte {position} of {layer.name[:20]}….tar")
    _flip(layer, position)
    stage.pratique("run", "--name", "again", APP, expect=125)
    _flip(layer, position)
    stage.say("flipping it back: it may start again")
    stage.pratique("verify", APP)


def revoked(stage: Stage) -> None:
    """Step 9: the base is revoked; what stands on it does not start, and what runs is stopped."""
    stage.step("The base is revoked: the next start is refused, and the running container is stopped")
    signers = ("--key", "alice.key", "--key", "bob.key", "--account", "alice")
    stage.pratique("revoke", "--registry", REGISTRY, "--digest", BASE, "--reason", "the base is withdrawn", *signers)
    stage.pratique("host", "sync")
    stage.pratique("run", "--name", "again", APP, expect=125)
    deadline = time.monotonic() + 20
    while '"running"' in stage.pratique("ps", "--json", show=False).out:
        if time.monotonic() > deadline:
            raise DemoFailedError("the container runs on, 20 s after its base was revoked")
        time.sleep(0.2)
    stage.pratique("ps", "--all")


def audited(stage: Stage) -> None:
    """Step 10: who did what, and that nothing of it was changed."""
    stage.step("The audit trail of all of it")
    stage.pratique("audit", "show", REGISTRY, "--changes", "--account", "carol")
    stage.pratique("audit", "verify", REGISTRY, "--trust", "trust.json", "--account", "carol")


def stop_everything(stage: Stage, registry: subprocess.Popen[bytes] | None, storage: Files | S3) -> None:
    """Stop what the demo started: containers, then the registry, then what it keeps its blobs in."""
    if (stage.folder / "state").exists():
        listed = subprocess.run(
            [_pratique(), "ps", "--all", "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=dict(stage.environment),
        )
        for container in json.loads(listed.stdout or "[]"):
            subprocess.run(
                [_pratique(), "rm", "--force", container["name"]],
                capture_output=True,
                check=False,
                env=dict(stage.environment),
            )
    if registry is not None and registry.poll() is None:
        registry.terminate()
        registry.wait(60)
    storage.stop()


def _push(stage: Stage, tag: str, target: str) -> None:
    stage.run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:build:{tag}", f"docker://{target}")


def _flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def _pratique() -> str:
    return str(Path(sys.executable).with_name("pratique"))
