"""What the demo pushes: a base, an application on it, and six images that must be denied, each for one reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.packages import SITE_PACKAGES, Wheel, os_release, python_files

USER = "65534:65534"
ENTRYPOINT = ["/srv/app/main"]
"""The base says where an application's program lies, so an application needs no config of its own for it."""

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PROGRAM = b"""#!/bin/sh
# Says what it sees, from the inside, and stays until it is told to end.
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
echo "pid                $$"
echo "program            $(tr '\\0' ' ' </proc/1/cmdline)"
echo "host name          $(cat /proc/sys/kernel/hostname)"
echo "user               $(id -u):$(id -g)"
echo "capabilities       effective $(status CapEff), bounding $(status CapBnd)"
echo "no new privileges  $(status NoNewPrivs), seccomp mode $(status Seccomp)"
for limit in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do
    [ -r $limit ] && echo "memory limit       $(cat $limit) bytes"
done
echo "network            $(ls /sys/class/net | tr '\\n' ' '), $(sed -n '2,$p' /proc/net/route | wc -l) routes"
(: >/srv/app/written) 2>/dev/null && echo "root               WRITABLE" || echo "root               read-only"
echo "processes          $(ls -d /proc/[0-9]* | wc -l) or fewer are visible"
[ "${1:-}" = once ] && exit 0
trap 'exit 0' TERM
while :; do sleep 1; done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """An image that must be denied: what is wrong with it, and what it is made of.

    `files` are its own layer on top of `parent` ("" for on nothing); `run` replaces fields of the config.
    """

    name: str
    wrong: str
    reason: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    parent: str = "base"
    run: Mapping[str, object] = field(default_factory=dict)


def application(*wheels: Wheel) -> dict[str, bytes]:
    """The files of an application, with the Python packages it brings along."""
    return {"srv/app/main!": PROGRAM, **python_files(*wheels, site=SITE_PACKAGES)}


APPLICATION = application(Wheel(name="itsdangerous", version="2.2.0", licence="BSD-3-Clause"))

DENIED = (
    Denied(
        name="outdated",
        wrong="an outdated package: a known-exploited hole that has a fix",
        reason="known-exploited",
        files=application(Wheel(name="salt", version="3000.1", licence="Apache-2.0")),
    ),
    Denied(
        name="unlicensed",
        wrong="a licence that is not allowed",
        reason="licence-not-allowed",
        files=application(Wheel(name="pymupdf", version="1.26.0", licence="AGPL-3.0-only")),
    ),
    Denied(
        name="ended",
        wrong="a component past its end of life",
        reason="end-of-life",
        files=application(Wheel(name="django", version="3.2.25", licence="BSD-3-Clause")),
    ),
    Denied(
        name="orphan",
        wrong="an application that sits on no approved parent",
        reason="no-approved-parent",
        files={**APPLICATION, **os_release()},
        parent="",
    ),
    Denied(
        name="shadow",
        wrong="a layer that replaces a file owned by its base",
        reason="replaces-parent-file",
        files={**APPLICATION, "usr/bin/env!": b"#!/bin/sh\nexec /srv/app/other\n"},
    ),
    Denied(
        name="hijacked",
        wrong="approved layers under another entrypoint and environment",
        reason="config-not-approved",
        parent="app",
        run={
            "Entrypoint": ["/bin/sh", "-c", "exec /bin/sh"],
            "Env": [PATH, "LD_PRELOAD=/srv/app/hook.so"],
        },
    ),
)
