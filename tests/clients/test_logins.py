"""Logging in, by each client's own command: names and secrets, people's passwords, issuers' tokens, nobody at all."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from ocispec.digest import Digest
from policy.model import State
from registry.access import Role
from registry.catalogue.accounts import add_account, set_password
from tests.clients.conftest import Desk, make_desk
from tests.support.identity import grants, person
from tests.support.images import BuiltImage, image
from tests.support.issuer import Issuer, issuer
from tests.support.processes import end
from tests.support.registry import LiveRegistry, web_registry
from tests.support.tools import need, need_root

PASSWORD = "brown fox: over 13 lazy dogs"
PULL = ("--src-tls-verify=false",)
PUSH = ("--dest-tls-verify=false",)


@pytest.fixture(scope="module")
def ci() -> Iterator[Issuer]:
    with issuer("RS256") as running:
        yield running


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, ci: Issuer) -> Iterator[LiveRegistry]:
    """A registry with an issuer, somewhere that is open to all, and a person with a password."""
    rules = [{"claims": {"repository": "acme/*"}, "role": "pusher", "grants": ["built/*"]}]
    oidc = [{"name": "ci", "issuer": ci.url, "audience": "registry.test", "rules": rules}]
    folder = tmp_path_factory.mktemp("registry")
    with web_registry(folder, oidc=oidc, tokens={"anonymous": ["public/*"]}, log={"access": True}) as running:
        catalogue = running.catalogue()
        with catalogue.write() as conn:
            add_account(conn, person("dana", Role.PUSHER, grants=grants("dana/*")))
            set_password(conn, "dana", PasswordHasher().hash(PASSWORD))
        catalogue.close()
        running.secrets["dana"] = PASSWORD
        yield running
    log = (running.folder / "web.log").read_text()
    assert "Traceback" not in log, log
    assert all(secret not in log for secret in running.secrets.values())


@pytest.fixture
def desk(live: LiveRegistry, tmp_path: Path) -> Desk:
    """The desk of somebody who has not logged in."""
    made = make_desk(tmp_path, live.address, "nobody", "nothing")
    made.authfile.write_text("{}")
    return made


def log_in(desk: Desk, tool: str, name: str, secret: str) -> subprocess.CompletedProcess[str]:
    """By the tool's own command, which tries the secret and writes it into the file that all of them share."""
    options = {
        "skopeo": ("--tls-verify=false",),
        "podman": ("--tls-verify=false",),
        "buildah": ("--tls-verify=false",),
        "oras": ("--plain-http",),
        "docker": (),
    }[tool]
    command = [need(tool), "login", *options, "--username", name, "--password-stdin", desk.registry]
    return subprocess.run(
        command,
        cwd=desk.folder,
        env=desk.environment,
        input=secret,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def copy_in(desk: Desk, name: str) -> subprocess.CompletedProcess[str]:
    source = image([{"x": name}]).write_layout(desk.folder / "in", "1")
    return desk.try_run("skopeo", "copy", *PUSH, f"oci:{source}:1", f"docker://{desk.registry}/{name}")


@pytest.mark.parametrize("tool", ["skopeo", "podman", "buildah", "oras"])
@pytest.mark.parametrize(("name", "repository"), [("pusher", "robots/app"), ("dana", "dana/app")])
def test_a_robot_and_a_person_log_in_and_push_and_pull(
    live: LiveRegistry, desk: Desk, tool: str, name: str, repository: str
) -> None:
    wrong = log_in(desk, tool, name, "wrong")
    assert wrong.returncode != 0
    assert "unknown account or wrong secret" in wrong.stderr or "invalid username/password" in wrong.stderr
    assert json.loads(desk.authfile.read_text()).get("auths", {}) == {}
    done = log_in(desk, tool, name, live.secrets[name])
    assert done.returncode == 0, done.stderr
    pushed = copy_in(desk, f"{repository}:{tool}")
    assert pushed.returncode == 0, pushed.stderr
    back = f"oci:{desk.folder / 'out'}:1"
    desk.run("skopeo", "copy", *PULL, f"docker://{desk.registry}/{repository}:{tool}", back)
    # By the token endpoint, and from there with a token.
    log = (live.folder / "web.log").read_text()
    assert "GET /token 200 bytes_in=0" in log


def test_whoever_may_not_push_is_told_so(live: LiveRegistry, desk: Desk) -> None:
    assert log_in(desk, "skopeo", "dana", PASSWORD).returncode == 0
    refused = copy_in(desk, "robots/app:1")
    assert refused.returncode != 0
    assert "denied" in refused.stderr
    assert "dana (pusher) may not" in refused.stderr


@pytest.mark.parametrize("tool", ["skopeo", "oras"])
def test_a_build_logs_in_by_its_issuers_token(live: LiveRegistry, desk: Desk, ci: Issuer, tool: str) -> None:
    done = log_in(desk, tool, "oidc", ci.token(repository="acme/app"))
    assert done.returncode == 0, done.stderr
    pushed = copy_in(desk, f"built/app:{tool}")
    assert pushed.returncode == 0, pushed.stderr
    assert copy_in(desk, f"robots/app:{tool}").returncode != 0
    for token in (ci.token(repository="other/app"), ci.token(repository="acme/app", aud="another.test")):
        assert log_in(desk, tool, "oidc", token).returncode != 0


def test_nobody_in_particular_pulls_what_is_cleared_in_public(live: LiveRegistry, desk: Desk) -> None:
    built = image([{"for": "everybody"}])
    live.push("public/app", built, "1")
    live.push("robots/secret", built, "1")
    name = f"docker://{desk.registry}/public/app:1"
    refused = desk.try_run("skopeo", "inspect", "--tls-verify=false", name)
    assert refused.returncode != 0  # it is not cleared yet
    live.judge("public/app", built.digest, State.CLEARED, serve="1")
    live.judge("robots/secret", built.digest, State.CLEARED, serve="1")
    seen = json.loads(desk.run("skopeo", "inspect", "--tls-verify=false", name))
    assert seen["Digest"] == str(built.digest)
    desk.run("oras", "pull", "--plain-http", f"{desk.registry}/public/app:1")
    refused = desk.try_run("skopeo", "inspect", "--tls-verify=false", f"docker://{desk.registry}/robots/secret:1")
    assert refused.returncode != 0
    assert copy_in(desk, "public/app:2").returncode != 0


def test_curl_pushes_and_pulls_by_basic_and_by_a_token(live: LiveRegistry, desk: Desk) -> None:
    """Clients that send a name and a secret with each request need no token."""
    secret, content = live.secrets["pusher"], b"of a blob"
    where = f"http://{desk.registry}/v2/robots/curled/blobs"
    url = f"http://{desk.registry}/token?service={desk.registry}&scope=repository:robots/curled:pull,push"
    token = json.loads(desk.run("curl", "-sS", "--fail", "-u", f"pusher:{secret}", url))["token"]
    (desk.folder / "blob").write_bytes(content)
    for who in (("-u", f"pusher:{secret}"), ("-H", f"Authorization: Bearer {token}")):
        told = f"{where}/uploads/?digest={Digest.of(content)}"
        desk.run("curl", "-sS", "--fail", *who, "-X", "POST", "--data-binary", "@blob", told)
        assert desk.run("curl", "-sS", "--fail", *who, f"{where}/{Digest.of(content)}").encode() == content
    wrong = desk.try_run("curl", "-sS", "--fail", "-u", "pusher:wrong", f"{where}/{Digest.of(content)}")
    assert "401" in wrong.stderr


# ---- containerd --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """`ctr`, with a containerd of the test's own, which has no plugin that would touch the machine."""
    need_root()
    for tool in ("containerd", "ctr"):
        need(tool)
    folder = tmp_path_factory.mktemp("ctr")
    socket = folder / "c.sock"
    (folder / "config.toml").write_text(
        "version = 2\n"
        f'root = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper",'
        ' "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs",'
        ' "io.containerd.snapshotter.v1.overlayfs", "io.containerd.nri.v1.nri"]\n'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [need("containerd"), "--config", str(folder / "config.toml")], stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield ("ctr", "--address", str(socket))
    finally:
        end(process, seconds=20)


@pytest.mark.root
def test_containerd_pushes_and_pulls(live: LiveRegistry, desk: Desk, containerd: tuple[str, ...]) -> None:
    built: BuiltImage = image([{"for": "containerd"}], flavour="oci", compression="gzip")
    archive = desk.folder / "image.tar"
    desk.run("skopeo", "copy", f"oci:{built.write_layout(desk.folder / 'in', '1')}:1", f"oci-archive:{archive}:1")
    name = f"{desk.registry}/robots/containerd:1"
    desk.run(*containerd, "images", "import", "--local", "--no-unpack", "--index-name", name, archive)
    who = ("--local", "--plain-http", "--user", f"pusher:{live.secrets['pusher']}")
    desk.run(*containerd, "images", "push", *who, name)
    desk.run(*containerd, "images", "rm", "--sync", name)
    desk.run(*containerd, "content", "fetch", "--plain-http", *who[2:], name)
    assert str(built.digest) in desk.run(*containerd, "images", "ls")
    wrong = desk.try_run(*containerd, "content", "fetch", "--plain-http", "--user", "pusher:wrong", name)
    assert wrong.returncode != 0
    assert "401" in wrong.stderr or "unauthorized" in wrong.stderr.lower()


def test_the_header_of_a_login_is_not_more_than_base64(live: LiveRegistry, desk: Desk) -> None:
    """A secret with a colon in it is whole."""
    assert log_in(desk, "skopeo", "dana", PASSWORD).returncode == 0
    stored = json.loads(desk.authfile.read_text())["auths"][desk.registry]["auth"]
    assert base64.b64decode(stored).decode() == f"dana:{PASSWORD}"
