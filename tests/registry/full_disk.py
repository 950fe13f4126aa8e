"""Run by test_full_disk.py in a mount namespace of its own, in a folder of 24 MiB: a registry whose disk gets full."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from ocispec.digest import Digest
from registry.store.open import open_store
from tests.support.images import image
from tests.support.registry import Answer, LiveRegistry, web_registry

REPOSITORY = "team/app"
MIB = 2**20


def refused(answer: Answer) -> None:
    """The answer says that there is no room."""
    assert answer.status == 507, answer
    error = json.loads(answer.body)["errors"][0]
    assert error["code"] == "STORAGE_FULL", error
    assert "no room left" in error["message"], error


def fill(live: LiveRegistry) -> None:
    """Push what does not fit, in each of the ways that there are."""
    content = os.urandom(24 * MIB)
    digest = Digest.of(content)
    uploads = f"/v2/{REPOSITORY}/blobs/uploads/"
    refused(live.request("POST", f"{uploads}?digest={digest}", body=content))
    session = live.request("POST", uploads).headers["location"]
    refused(live.request("PATCH", session, body=content))
    refused(live.request("PUT", f"{session}?digest={digest}", body=content))
    assert live.request("HEAD", f"/v2/{REPOSITORY}/blobs/{digest}").status == 404
    assert live.request("GET", session).headers["range"] == "0-0"
    assert live.request("DELETE", session).status == 204
    assert list((live.settings.store_folder / "tmp").iterdir()) == []


def main(folder: Path) -> None:
    """Fill the disk by pushes, then to the last byte by something else, then make room again."""
    with web_registry(folder / "registry") as live:
        kept, late = image([{"kept": "yes"}]), image([{"late": "x" * 1000}])
        live.push(REPOSITORY, kept, "v1")
        fill(live)
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        for content in late.blobs.values():
            answer = live.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={Digest.of(content)}", body=content)
            refused(answer)
        # What was acknowledged is still read.
        assert live.request("GET", f"/v2/{REPOSITORY}/manifests/v1").body == kept.manifest.raw
        for digest, content in kept.blobs.items():
            assert live.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}").body == content
        ballast.unlink()
        live.push(REPOSITORY, late, "v2")
        assert live.request("GET", f"/v2/{REPOSITORY}/manifests/v2").body == late.manifest.raw
        store = open_store(live.settings)
        assert set(store.digests()) == {*kept.blobs, *late.blobs}
        log = (live.folder / "web.log").read_text()
        assert "Traceback" not in log, log


if __name__ == "__main__":
    main(Path(sys.argv[1]))
