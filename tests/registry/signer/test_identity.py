"""A catalogue, a memory and a key belong together; what does not fit is refused, and can be adopted on purpose."""

from __future__ import annotations

import subprocess
import sys

import pytest

from policy.key_files import write_private
from policy.private_key import PrivateKey
from registry.audit import read
from registry.places import Places
from tests.support.images import image
from tests.support.live import WholeRegistry, whole_registry


def _adopt(live: WholeRegistry) -> None:
    command = [sys.executable, "-m", "pratique", "serve", "--config", str(live.settings_file), "--adopt-signer"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_memory_that_was_begun_anew_does_not_sign_until_it_is_adopted() -> None:
    with whole_registry() as live:
        live.publish()
        live.stop()
        Places(live.settings).signer_memory.unlink()
        with pytest.raises(AssertionError, match="statements come from memory"):
            live.start()
        _adopt(live)
        live.start()
        built = image()
        live.push("team/base", built, "1")
        live.approve("team/base", built, "base", live.ring.alice, live.ring.bob)
        live.until("team/base", built.digest, "cleared")
        catalogue = live.catalogue()
        with catalogue.read() as conn:
            adopted = [record for record in read(conn, after=0, limit=1000) if record.subject == "signer"]
        catalogue.close()
        assert [(record.event, record.principal) for record in adopted] == [("settings", "operator")]
        assert adopted[0].before.startswith("memory ")
        assert adopted[0].after.startswith("memory ")


def test_other_key_does_not_sign_under_the_memory_of_the_first() -> None:
    with whole_registry() as live:
        live.publish()
        live.stop()
        key = Places(live.settings).signer_key
        key.unlink()
        write_private(key, PrivateKey.generate())
        with pytest.raises(AssertionError, match="this signer has key"):
            live.start()
        _adopt(live)
        live.start()
