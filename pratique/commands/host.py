"""Enrol this host, and fetch what it has to know: newer trust, the revocation list, policy floors.

pratique host enrol REGISTRY --trust trust.json --account host-1 < secret
    makes this host believe trust.json; compare the digest it prints with the one the officers published
pratique host enrol REGISTRY --trust trust.json --certificate host.pem --certificate-key host.key
    the same for a host that the registry knows by its client certificate
pratique host sync
    asks every registry for newer trust, revocation list and policy floors
pratique host report
    tells every registry what runs here, so that its retention keeps it; to be called every hour or so
pratique host set --depth always
    how the bytes of an image are proven at each start: `always` hashes all of them; `sealed`, the default, hashes
    once a day and proves in between that nobody touched the files
pratique host rehash
    hashes what the store holds, past all caches, and says what was changed on the disk; to be called every few hours
pratique host show
    what this host believes: trust, numbers it has seen, and until when it can start images offline
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pratique import arguments as shared
from pratique import clock, hosting
from pratique.exits import Exit, UsageError
from pratique.output import as_json, line

if TYPE_CHECKING:
    from ocispec.strictjson import JsonValue
    from runtime.host import Host


DEPTHS = ("always", "sealed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `enrol`, `sync`, `report`, `set`, `rehash` and `show`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="enrol|sync|report|set|rehash|show")
    enrol = verbs.add_parser("enrol", help="believe a trust.json, and pull from a registry")
    enrol.add_argument("registry", metavar="REGISTRY", help="host[:port], as trust.json lists it")
    enrol.add_argument("--trust", metavar="FILE", type=Path, required=True, help="trust.json, brought by hand")
    enrol.add_argument("--digest", metavar="DIGEST", help="refuse a trust.json with another digest than this")
    enrol.add_argument("--account", metavar="NAME", help="this host's account; its secret is read from stdin")
    shared.add_certificate(enrol)
    enrol.add_argument("--plain-http", action="store_true", help="HTTP without TLS, to a loopback address only")
    enrol.add_argument(
        "--ca", metavar="FILE", type=Path, help="certificate authorities (PEM) believed for this registry"
    )
    sync = verbs.add_parser("sync", help="ask the registries for newer trust, revocations and floors")
    show = verbs.add_parser("show", help="what this host believes, and until when it starts images offline")
    report = verbs.add_parser("report", help="tell the registries what runs here")
    hosting.add_state(report)
    choose = verbs.add_parser("set", help="choose how deep the bytes of an image are looked at, at each start")
    choose.add_argument("--depth", choices=DEPTHS, required=True, help="always, or sealed (the default)")
    again = verbs.add_parser("rehash", help="hash what the store holds, and say what was changed on the disk")
    again.add_argument("--all", action="store_true", help="also what was hashed within the last twelve hours")
    hosting.add_state(again)
    for verb in (enrol, sync, report, choose, again, show):
        hosting.add_store(verb)
        shared.add_json(verb)


def run(arguments: argparse.Namespace) -> int:
    """Do what the verb says."""
    match arguments.verb:
        case "enrol":
            return _enrol(arguments)
        case "sync":
            return _sync(hosting.open_host(arguments), arguments)
        case "report":
            return _report(hosting.open_host(arguments), arguments)
        case "set":
            return _set(hosting.open_host(arguments), arguments)
        case "rehash":
            return _rehash(hosting.open_host(arguments), arguments)
        case _:
            return _show(hosting.open_host(arguments), arguments)


def _enrol(arguments: argparse.Namespace) -> int:
    from ocispec.access import Credentials
    from policy.trust import Trust
    from runtime.host import Host, RegistryAccount
    from runtime.store import Store

    now = clock.now()
    envelope = arguments.trust.read_bytes()
    digest = str(Trust.stored(envelope, now).digest)
    if arguments.digest is not None and arguments.digest != digest:
        raise UsageError(f"{arguments.trust}: got digest {digest}, expected {arguments.digest}")
    credentials = None
    if arguments.account is not None:
        secret = shared.secret_from_stdin(f"secret of {arguments.account}: ")
        if not secret:
            raise UsageError(f"account {arguments.account}: got an empty secret")
        credentials = Credentials(name=arguments.account, secret=secret)
    account = RegistryAccount(
        registry=arguments.registry,
        credentials=credentials,
        certificate=shared.certificate(arguments),
        ca=arguments.ca.read_text() if arguments.ca is not None else "",
        plain_http=arguments.plain_http,
    )
    host = Host.enrol(Store.open(arguments.store), envelope, account, now)
    if not arguments.json:
        line(f"believes trust.json of digest {digest}")
        line("compare that digest with the one that the root key holders published")
    return _sync(host, arguments)


def _sync(host: Host, arguments: argparse.Namespace) -> int:
    synced = host.sync(clock.now())
    if arguments.json:
        as_json(
            {
                "news": list(synced.news),
                "refused": [{"code": r.code, "object": r.subject, "detail": r.detail} for r in synced.refused],
                "silent": list(synced.silent),
            }
        )
    else:
        for text in synced.news or (("nothing new",) if synced.fine else ()):
            line(text)
        for refusal in synced.refused:
            hosting.refused(refusal, json=False)
        for text in synced.silent:
            line(f"no answer: {text}", to=sys.stderr)
    return Exit.FINE if synced.fine else Exit.DENIED if synced.refused else Exit.FAILED


def _report(host: Host, arguments: argparse.Namespace) -> int:
    from runtime.container import list_containers
    from runtime.reporting import report, running_images

    told = report(host, running_images(list_containers(arguments.state)))
    if arguments.json:
        as_json([{"registry": each.registry, "images": each.images, "error": each.error} for each in told])
    for each in told:
        if each.error:
            line(f"{each.registry}: not told what runs here: {each.error}", to=sys.stderr)
        elif not arguments.json:
            line(f"{each.registry}: knows of {each.images} images that run here")
    return Exit.FAILED if any(each.error for each in told) else Exit.FINE


def _set(host: Host, arguments: argparse.Namespace) -> int:
    from runtime.settings import Depth, HostSettings

    settings = HostSettings(depth=Depth(arguments.depth))
    host.set(settings)
    if arguments.json:
        as_json({"depth": settings.depth.value})
    else:
        line(f"depth of a start's look at bytes: {settings.depth}")
    return Exit.FINE


def _rehash(host: Host, arguments: argparse.Namespace) -> int:
    from runtime.container import list_containers
    from runtime.rehash import DUE, rehash

    done = rehash(host.store, due=timedelta(0) if arguments.all else DUE)
    containers = [found for found in list_containers(arguments.state) if found.status != "exited"]
    shown: list[JsonValue] = []
    if not arguments.json:
        line(f"{done.hashed} files hashed, {done.sealed} hashed lately, {len(done.damaged)} damaged")
    for each in done.damaged:
        images = [record.name for record in each.images]
        manifests = {str(record.manifest) for record in each.images}
        running = [str(found.name) for found in containers if found.shown.digest in manifests]
        shown.append({"digest": str(each.digest), "detail": each.detail, "images": [*images], "containers": [*running]})
        if not arguments.json:
            line(f"damaged: {each.digest}: {each.detail}", to=sys.stderr)
            for name in images:
                line(f"  image:     {name} (pratique pull {name})", to=sys.stderr)
            for name in running:
                line(f"  container: {name} runs from it", to=sys.stderr)
    if arguments.json:
        as_json({"hashed": done.hashed, "sealed": done.sealed, "damaged": shown})
    return Exit.DENIED if done.damaged else Exit.FINE


def _show(host: Host, arguments: argparse.Namespace) -> int:
    from policy.errors import TrustError
    from policy.times import format_time

    now = clock.now()
    trust = host.trust(now)
    state = host.state()
    registries = [account.registry for account in host.accounts()]
    try:
        current = host.revocations(trust, now)
        listed = (
            f"number {current.list.statement.number}, until {format_time(current.date.statement.expires)}"
            if current is not None
            else "none yet: nothing starts before the first one"
        )
    except TrustError as error:
        listed = f"not usable: {error}"
    synced = host.synced()
    facts = {
        "registries": ", ".join(registries),
        "trust": f"version {trust.root.version}, digest {trust.digest}, until {format_time(trust.root.expires)}",
        "revocation list": listed,
        "highest signed time": format_time(state.highest_time) if state.highest_time is not None else "none yet",
        "depth of starts": host.settings().depth.value,
        "last asked": format_time(synced) if synced is not None else "never",
    }
    if arguments.json:
        as_json({key.replace(" ", "_"): value for key, value in facts.items()})
    else:
        for key, value in facts.items():
            line(f"{key + ':':<21}{value}")
    return Exit.FINE
