"""What a plan has to know of this host, and what of it depends on the request."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from runtime.errors import HostError
from runtime.linux.capabilities import NAMES, held, last_capability, mask
from runtime.linux.cgroups import find_hierarchies
from runtime.model import StartRequest
from runtime.plan import HostFacts
from runtime.state import StateStore

_PROCESSORS: Final = Path("/sys/devices/system/cpu")
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_MAX_RESOLV_CONF: Final = 64 * 1024


def host_facts(store: StateStore) -> HostFacts:
    """What is the same for every request, while this host is up."""
    throttles = list(_PROCESSORS.glob("cpu[0-9]*/thermal_throttle"))
    return HostFacts(
        hierarchies=find_hierarchies(),
        last_capability=last_capability(),
        scaffold_point=str(store.path / "parts"),
        root_point=str(store.path / "root"),
        files_point=str(store.path / "files"),
        masked=tuple(("sys", f"devices/system/cpu/{path.parent.name}/{path.name}") for path in throttles),
    )


def facts_for(request: StartRequest, host: HostFacts, reaper: str = "") -> HostFacts:
    """The facts for one request; `reaper` is the name of the one that was opened for it.

    Raises:
        HostError: it asks for capabilities that this process does not have to give.
    """
    if lacking := mask(request.process.capabilities) & ~held():
        names = ", ".join(name for number, name in enumerate(NAMES) if lacking >> number & 1)
        raise HostError(f"capabilities {names}: this process does not have them to give")
    resolv_conf = b""
    if request.network == "host":
        with contextlib.suppress(OSError):
            resolv_conf = _RESOLV_CONF.read_bytes()[:_MAX_RESOLV_CONF]
    return replace(host, resolv_conf=resolv_conf, reaper=reaper)
