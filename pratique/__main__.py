"""The main path of the command line: find the verb, import its one file, run it, turn errors into one line.

`VERBS` is the map of the whole command. Nothing but the chosen verb is imported: the interpreter's imports
are most of what a short command costs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

VERBS: Final[tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "Developers",
        (
            ("login", "remember an account of a registry; set a person's password"),
            ("logout", "forget the accounts of a registry"),
            ("status", "the state of an image, and what stands against it; --wait for the decision"),
            ("explain", "every refusal of an image: rule, layer, package, fix, and who can waive it"),
            ("scan", "what is in an image: components, licences, findings; table, JSON, CycloneDX or SPDX"),
            ("check", "the decision on an image before it is pushed"),
            ("inspect", "an image's manifest, config, layers and tree"),
        ),
    ),
    (
        "Security officers",
        (
            ("images", "the images of a registry and their states"),
            ("approve", "sign that an image or a layer is fit for a level"),
            ("waive", "sign an exception with an owner, a reason and an end"),
            ("revoke", "sign that a digest, layer, component or key may no longer start"),
            ("policy", "lint, sign and publish policies"),
            ("keys", "make and show keys"),
            ("trust", "make, sign, show and export trust.json"),
            ("advisories", "import advisory, exploit and end-of-life records; show their age"),
        ),
    ),
    (
        "Host operators",
        (
            ("host", "enrol this host; fetch the newest revocation list"),
            ("pull", "fetch a cleared image and prove it"),
            ("verify", "prove that an image on this host may start, without starting it"),
            ("run", "start a cleared image in namespaces and cgroups"),
            ("broker", "keep a process that starts containers at once"),
            ("ps", "what runs, and what stands against it"),
            ("logs", "what a container wrote"),
            ("stop", "stop a container"),
            ("rm", "remove a stopped container, or an image from this host"),
        ),
    ),
    (
        "Auditors and administrators",
        (
            ("audit", "show and verify the audit trail; take a decision again from its evidence"),
            ("serve", "run the registry"),
            ("backup", "write a registry's catalogue to one file, while it works"),
            ("restore", "read a backup into an empty database, and compare it with the store"),
            ("accounts", "make, change and remove accounts of a registry; renew secrets, invite people, end tokens"),
            ("rules", "tags that never change, quotas, and what stays, of a registry's repositories"),
            ("collect", "free what nothing needs in a registry, and show what was freed and why"),
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pratique ARGV…` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = False
    while arguments and arguments[0] in {"--debug", "--help", "-h", "--version"}:
        flag = arguments.pop(0)
        if flag == "--debug":
            debug = True
        elif flag == "--version":
            return _version()
        else:
            print(_help())
            return 0
    if not arguments:
        print(_help(), file=sys.stderr)
        return 2
    verb, rest = arguments[0], arguments[1:]
    if verb not in {name for _, verbs in VERBS for name, _ in verbs}:
        print(f"pratique: no verb {verb[:40]!r}; `pratique --help` lists them", file=sys.stderr)
        return 2
    if not debug:
        from pratique import quick

        code = quick.ask(verb, rest)
        if code is not None:
            return code
    from pratique.dispatch import run_verb

    return run_verb(verb, rest, debug=debug)


def _help() -> str:
    lines = [
        "usage: pratique [--debug] VERB [ARGUMENTS]",
        "",
        "Runs only what was cleared. `pratique VERB --help` tells more.",
    ]
    for people, verbs in VERBS:
        lines += ["", f"{people}:"]
        lines += [f"  {name:<11} {line}" for name, line in verbs]
    lines += [
        "",
        "A SOURCE is a registry reference (registry/repository:tag or @digest), oci:FOLDER[:TAG],",
        "docker-archive:FILE or dir:FOLDER. --json gives machine-readable output wherever there is output.",
        "Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 denied; `run` passes the container's own through,",
        "with 125 not started, 126 not executable and 127 not found.",
        "--debug shows where an error came from.",
    ]
    return "\n".join(lines)


def _version() -> int:
    from importlib.metadata import version

    print(f"pratique {version('pratique')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
