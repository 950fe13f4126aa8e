"""Start a cleared image in namespaces and cgroups. What is not cleared does not start, and the reason is said.

pratique run registry.example/shop/web:1
pratique run --detach --name web --memory 256m registry.example/shop/web:1 --verbose

The image is proven again at each start, also offline. By default it has no network, a read-only root, no
capability, and the memory and process limits of the policy. Words after IMAGE replace the image's Cmd, if the
policy lets the command be replaced. The exit code is the program's own; 125 the container was not started
(125 with `refused:` on stderr: it may not be), 126 its program cannot be executed, 127 it is not there.
"""

from __future__ import annotations

import argparse
import re
import secrets
import sys
from typing import TYPE_CHECKING

from pratique import clock, hosting
from pratique.exits import Exit, UsageError
from pratique.output import line

if TYPE_CHECKING:
    from ocispec.reference import Reference
    from policy.refusal import Refused
    from runtime.admission import Cleared
    from runtime.host import Host
    from runtime.model import Bind, StopReason, Tmpfs
    from runtime.wish import Wish

_SIZE = re.compile(r"([1-9]\d{0,14})([bkmg]?)", re.ASCII | re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of docker run that mean something here, under docker's names."""
    parser.add_argument("image", metavar="IMAGE", help="registry/repository:tag or @digest")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="replaces the image's Cmd")
    parser.add_argument("--name", help="name of the container (default: from the image's name)")
    parser.add_argument("-d", "--detach", action="store_true", help="run in the background; print its name")
    parser.add_argument("--pull", choices=("missing", "always", "never"), default="missing", help="default: missing")
    parser.add_argument("--init", action="store_true", help="put a reaper in front of the program, as pid 1")
    parser.add_argument("-i", "--interactive", action="store_true", help="give it this standard input")
    parser.add_argument("--keep", action="store_true", help="keep exit code and log after its end, until `rm`")
    process = parser.add_argument_group("process")
    process.add_argument("-e", "--env", metavar="NAME=VALUE", action="append", default=[])
    process.add_argument("-u", "--user", metavar="UID[:GID]")
    process.add_argument("-w", "--workdir", metavar="FOLDER")
    process.add_argument("--entrypoint", metavar="PROGRAM")
    process.add_argument("--hostname", default="")
    process.add_argument("--cap-add", metavar="CAP_NAME", action="append", default=[])
    limits = parser.add_argument_group("limits")
    limits.add_argument("-m", "--memory", metavar="SIZE", help="e.g. 256m")
    limits.add_argument("--pids-limit", metavar="COUNT", type=int)
    limits.add_argument("--cpus", metavar="NUMBER", type=float, help="e.g. 0.5")
    files = parser.add_argument_group("files and network")
    files.add_argument("--network", choices=("none", "host"), default="none", help="default: none")
    files.add_argument("--writable", action="store_true", help="a writable root, in memory, gone with the container")
    files.add_argument("-v", "--volume", metavar="SOURCE:TARGET[:rw,exec,suid,dev]", action="append", default=[])
    files.add_argument("--tmpfs", metavar="TARGET[:SIZE]", action="append", default=[])
    hosting.add_store(parser)
    hosting.add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Admit it, and start it."""
    from ocispec.reference import Reference
    from policy.refusal import Refused
    from runtime.launch import run as launch
    from runtime.model import ContainerId
    from runtime.watch import Watcher

    reference = Reference.parse(arguments.image)
    wish = wish_of(arguments, reference)
    host = hosting.open_host(arguments)
    cleared = _admit(reference, wish, host, arguments.pull)
    if isinstance(cleared, Refused):
        return hosting.refused(cleared, json=False, exit_code=Exit.NOT_STARTED)
    with cleared:
        for note in cleared.proven.notes:
            line(f"note: {note}", to=sys.stderr)
        result = launch(
            cleared.request,
            state_dir=arguments.state,
            detach=arguments.detach,
            watch=Watcher(host=host, watched=cleared.proven.watched(), clock=clock.now),
            on_stop=_say_why,
        )
    if isinstance(result, ContainerId):
        line(str(result))
        return Exit.FINE
    return result


def _admit(reference: Reference, wish: Wish, host: Host, pulling: str) -> Cleared | Refused:
    from policy.refusal import Refused
    from runtime.admission import admit

    if pulling != "always":
        cleared = admit(reference, wish, host=host, now=clock.now())
        if pulling == "never" or not (isinstance(cleared, Refused) and cleared.code == "not-pulled"):
            return cleared
    from runtime.pull import pull

    pulled = pull(reference, host=host, clock=clock.now, progress=hosting.ProgressLines())
    return pulled if isinstance(pulled, Refused) else admit(reference, wish, host=host, now=clock.now())


def _say_why(reason: StopReason) -> None:
    line(f"stopped: {reason.code}: {reason.message}", to=sys.stderr)


def wish_of(arguments: argparse.Namespace, reference: Reference) -> Wish:
    """What the arguments ask for.

    Raises:
        UsageError: nothing that can be asked for.
    """
    from runtime.model import ContainerId
    from runtime.wish import Wish

    if arguments.detach and arguments.interactive:
        raise UsageError("--interactive: got --detach too, and a container in the background has no standard input")
    return Wish(
        name=ContainerId(arguments.name or f"{reference.repository.rpartition('/')[2][:50]}-{secrets.token_hex(3)}"),
        arguments=tuple(arguments.command),
        entrypoint=(arguments.entrypoint,) if arguments.entrypoint else None,
        env=tuple(arguments.env),
        user=arguments.user,
        working_dir=arguments.workdir,
        hostname=arguments.hostname,
        memory=size_of(arguments.memory) if arguments.memory else None,
        pids=arguments.pids_limit,
        cpus_milli=round(arguments.cpus * 1000) if arguments.cpus is not None else None,
        network=arguments.network,
        mounts=tuple(_bind(text) for text in arguments.volume),
        tmpfs=tuple(_tmpfs(text) for text in arguments.tmpfs),
        capabilities=tuple(_capability(name) for name in arguments.cap_add),
        writable=arguments.writable,
        init=arguments.init,
        stdin=arguments.interactive,
        keep=arguments.keep or arguments.detach,
    )


def size_of(text: str) -> int:
    """Bytes: a whole number with b, k, m or g (powers of 1024, as docker has them).

    Raises:
        UsageError: anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"size {text!r}: expected a whole number with b, k, m or g, like 256m")
    return int(match[1]) * _FACTORS[match[2].lower()]


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def _bind(text: str) -> Bind:
    from runtime.model import Bind

    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    asked = set(options.split(",")) if options else set()
    if not target or asked - {"rw", "ro", "exec", "suid", "dev"} or {"rw", "ro"} <= asked:
        raise UsageError(f"volume {text!r}: expected SOURCE:TARGET[:rw,exec,suid,dev]")
    return Bind(
        source=source,
        target=target,
        read_only="rw" not in asked,
        noexec="exec" not in asked,
        nosuid="suid" not in asked,
        nodev="dev" not in asked,
    )


def _tmpfs(text: str) -> Tmpfs:
    from runtime.model import Tmpfs

    target, _, size = text.partition(":")
    return Tmpfs(target=target, size=size_of(size)) if size else Tmpfs(target=target)
