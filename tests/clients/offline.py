"""Run by test_trusted.py in a network namespace without a route: what cosign makes of a clearance, without any log.

The registry and cosign have loopback between them and nothing else, so no transparency log and no key service can
be asked.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from policy.statements import Clearance
from policy.wire import predicate_type
from tests.clients.conftest import make_desk
from tests.support.images import image
from tests.support.live import whole_registry
from tests.support.packages import os_release

REPOSITORY = "team/app"


def main() -> None:
    """Clear an image, and verify its signature and its attestation with the registry's public key."""
    routes = Path("/proc/self/net/route").read_text().splitlines()[1:]
    assert not routes, routes
    with whole_registry() as live, tempfile.TemporaryDirectory() as folder:
        live.publish()
        base, other = image([{"bin/": b"", **os_release()}]), image([{"bin/": b"", "bin/x": b"", **os_release()}])
        live.push(REPOSITORY, base, "1")
        live.push(REPOSITORY, other, "2")
        live.approve(REPOSITORY, base, "base", live.ring.alice, live.ring.bob)
        live.until(REPOSITORY, "1", "cleared")
        desk = make_desk(Path(folder), live.address, "host", live.secrets["host"])
        (desk.folder / "registry.pub").write_bytes((live.settings.data / "registry.pub").read_bytes())
        reference = f"{live.address}/{REPOSITORY}"
        options = ("--key", "registry.pub", "--insecure-ignore-tlog", "--allow-http-registry")
        kind = predicate_type(Clearance)

        signed = json.loads(desk.run("cosign", "verify", *options, f"{reference}:1"))
        assert [each["critical"]["image"]["docker-manifest-digest"] for each in signed] == [str(base.digest)]
        assert [each["critical"]["identity"]["docker-reference"] for each in signed] == [f"{reference}:1"]
        attested = desk.run("cosign", "verify-attestation", *options, "--type", kind, f"{reference}@{base.digest}")
        assert json.loads(attested.splitlines()[0])["payloadType"] == "application/vnd.in-toto+json"

        # The controls: another image, and another key.
        desk.login("pusher", live.secrets["pusher"])
        unsigned = desk.try_run("cosign", "verify", *options, f"{reference}:2")
        assert unsigned.returncode != 0
        assert "no signatures found" in unsigned.stderr, unsigned.stderr
        unattested = desk.try_run("cosign", "verify-attestation", *options, "--type", kind, f"{reference}:2")
        assert unattested.returncode != 0
        desk.run("cosign", "generate-key-pair")
        foreign = desk.try_run("cosign", "verify", "--key", "cosign.pub", *options[2:], f"{reference}:1")
        assert foreign.returncode != 0


if __name__ == "__main__":
    main()
