"""The whole registry on S3, with two judges: nothing of the chain is about files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.images import image
from tests.support.live import whole_registry
from tests.support.s3 import bucket, s3_server


@pytest.mark.slow
def test_chain_on_s3_with_two_judges(tmp_path: Path) -> None:
    with s3_server(tmp_path) as endpoint:
        made = bucket(endpoint, "registry")
        s3 = {
            "bucket": made.bucket,
            "access_key": made.access_key,
            "secret_key": made.secret_key,
            "endpoint": made.endpoint,
        }
        with whole_registry(storage={"engine": "s3", "s3": s3}, judge={"workers": 2, "push_wait_ms": 0}) as live:
            live.publish()
            built = [image([{"bin/": b"", "bin/sh": b"#!%d" % number}]) for number in range(4)]
            for number, each in enumerate(built):
                live.push("team/base", each, str(number))
                live.approve("team/base", each, "base", live.ring.alice, live.ring.bob)
            for number, each in enumerate(built):
                live.until("team/base", each.digest, "cleared")
                answer = live.request("GET", f"/v2/team/base/manifests/{number}", account="host")
                assert answer.headers["docker-content-digest"] == str(each.digest)
                blob = each.layers[0].descriptor.digest
                assert live.request("GET", f"/v2/team/base/blobs/{blob}", account="host").status in {200, 307}
