"""A whole registry with a copy of another: quarantined, too new for the policy, approved, cleared, pulled by a host."""

from __future__ import annotations

from tests.support.fakeregistry import FakeRegistry
from tests.support.images import image
from tests.support.live import whole_registry
from tests.support.packages import os_release


def test_copy_is_cleared_like_anything_else() -> None:
    built = image([{**os_release(), "a": b"1"}])
    with FakeRegistry() as upstream:
        upstream.add(built, "library/os", "13")
        mirror = {"prefix": "hub/", "registry": upstream.host, "below": "library/", "scheme": "http"}
        with whole_registry(mirrors=[mirror]) as live:
            live.publish()
            first = live.request("GET", "/v2/hub/os/manifests/13", account="host")
            assert first.status == 403
            live.until("hub/os", built.digest, "denied")
            live.approve("hub/os", built, "base", live.ring.alice, live.ring.bob)
            live.until("hub/os", built.digest, "cleared")
            assert live.request("GET", "/v2/hub/os/manifests/13", account="host").body == built.manifest.raw
            for digest, content in built.blobs.items():
                assert live.request("GET", f"/v2/hub/os/blobs/{digest}", account="host").body == content
