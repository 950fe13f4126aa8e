"""Sign an exception: a rule or an advisory, for a component, in a scope, with an owner, a reason and an end.

pratique waive --registry registry.example:5000 --rule vulnerabilities --advisory CVE-2026-1234 \\
    --component 'pkg:deb/debian/openssl@**' --scope 'registry.example:5000/shop/**' \\
    --until 30d --reason 'not reachable: no TLS in this service' --ticket SEC-17 --owner alice --key alice.key

RULE, component and scope are as `pratique explain` shows them; * in a glob stops at a slash, ** does not. The
policy says which rules may be waived, by whom, and for how long; `pratique revoke --withdraw STATEMENT` ends a
waiver early.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pratique import arguments as shared
from pratique import clock
from pratique.exits import Exit, UsageError
from pratique.output import line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what is waived, where, until when, by whom and why."""
    parser.add_argument("--registry", metavar="REGISTRY", help="hand it in there")
    parser.add_argument("--rule", metavar="RULE", required=True, help="a rule of the policy, or * for any")
    parser.add_argument("--advisory", metavar="ID", default="", help="one advisory, by id or alias (default: any)")
    parser.add_argument("--component", metavar="GLOB", default="", help="a package URL, e.g. pkg:pypi/jinja2@**")
    parser.add_argument("--scope", metavar="GLOB", required=True, help="registry/repository, e.g. reg:5000/shop/**")
    parser.add_argument("--until", metavar="TIME", required=True, help="30d, 12h, or a date")
    parser.add_argument("--reason", metavar="TEXT", required=True)
    parser.add_argument("--ticket", metavar="TICKET", required=True)
    parser.add_argument("--owner", metavar="NAME", required=True, help="who answers for it")
    shared.add_keys(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the statement there, and hand nothing in")
    shared.add_account(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sign it, and hand it in."""
    from policy.globs import Glob
    from policy.seal import seal
    from policy.statements import Waiver
    from pratique.control import control
    from pratique.envelopes import open_envelope
    from pratique.files import write_new
    from pratique.statements import hand_in

    now = clock.now()
    if (arguments.registry is None) == (arguments.out is None):
        raise UsageError("waive: expected --registry to hand it in, or --out to write it")
    for glob in filter(None, (arguments.component, arguments.scope)):
        Glob.compile(glob)
    waiver = Waiver(
        rule=arguments.rule,
        advisory=arguments.advisory,
        component=arguments.component,
        scope=arguments.scope,
        owner=arguments.owner,
        reason=arguments.reason,
        ticket=arguments.ticket,
        issued=now,
        expires=shared.until(arguments.until, now),
    )
    envelope = seal(waiver, *shared.read_keys(arguments))
    open_envelope(envelope, "waiver")
    if arguments.out is not None:
        write_new(arguments.out, envelope)
        line(f"wrote {arguments.out}")
        return Exit.FINE
    return hand_in(control(arguments.registry, arguments.account), envelope, json=arguments.json)
