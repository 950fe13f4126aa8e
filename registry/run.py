"""One of the registry's inner processes: `python -m registry.run NAME SETTINGS-FILE [NUMBER]`.

`serve.py` starts them; the web process is `registry.web`, the keeper `registry.keeper`.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policy.errors import TrustError
from registry import processes
from registry.errors import RegistryError
from registry.settings import load

if TYPE_CHECKING:
    from registry.prepared import Prepared

PROCESSES: Final = {
    "signer": "registry.signer.process",
    "judge": "registry.judge.process",
    "mirror": "registry.mirror.process",
    "metrics": "registry.telemetry.exporter",
}
"""The module of each, with its function `run(settings, number)`; the judge's may be given its catalogue."""

_log = logging.getLogger("pratique.run")


def main(prepared: Prepared | None = None) -> int:
    """The command line of this module; a process that was forked is given what was `prepared`."""
    name, path, *rest = sys.argv[1:]
    processes.log_to_stderr(name)
    processes.die_with_parent(signal.SIGTERM)
    try:
        settings = prepared.settings if prepared is not None else load(Path(path))
        processes.log_to_stderr(name, settings.log)
        given = (prepared.judge,) if prepared is not None and name == "judge" else ()
        importlib.import_module(PROCESSES[name]).run(settings, int(rest[0]) if rest else 0, *given)
    except (RegistryError, TrustError, OSError) as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
