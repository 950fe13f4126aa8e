"""Remember an account of a registry. The secret is read from standard input, or asked for at a terminal.

pratique login registry.example:5000 --account alice < secret
pratique login 127.0.0.1:5000 --account alice --plain-http      HTTP without TLS: a loopback address only
pratique login registry.example:5000 --bootstrap --account admin < token
    makes the first admin account with the one-time token that `pratique serve` printed, and remembers it
pratique login registry.example:5000 --forget

The account is tried before it is remembered, in ~/.config/pratique/accounts.json ($PRATIQUE_CONFIG is another
folder), which only you can read. Where several accounts of one registry are remembered, the last one speaks unless
a verb is given --account.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ocispec.access import Access
from pratique import accounts
from pratique import arguments as shared
from pratique.exits import CommandError, Exit, UsageError
from pratique.output import as_json, line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the registry, the account, and how it is reached."""
    parser.add_argument("registry", metavar="REGISTRY", help="host[:port]")
    parser.add_argument("--account", metavar="NAME", help="name of the account")
    parser.add_argument("--bootstrap", action="store_true", help="make the first admin account; reads the token")
    parser.add_argument("--show", action="store_true", help="with --bootstrap: print the new secret, too")
    parser.add_argument("--forget", action="store_true", help="forget every account of this registry")
    parser.add_argument("--plain-http", action="store_true", help="HTTP without TLS, to a loopback address only")
    parser.add_argument("--ca", metavar="FILE", type=Path, help="certificate authorities (PEM) believed for it")
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Try the account and remember it, or forget."""
    if arguments.forget:
        count = accounts.forget(arguments.registry)
        line(f"forgot {count} account{'s' if count != 1 else ''} of {arguments.registry}")
        return Exit.FINE
    if arguments.account is None:
        raise UsageError("login: expected --account NAME")
    access = Access(plain_http=arguments.plain_http, ca_file=arguments.ca.absolute() if arguments.ca else None)
    account = accounts.Account(
        registry=arguments.registry,
        name=arguments.account,
        secret=_bootstrap(arguments, access) if arguments.bootstrap else _secret(arguments),
        plain_http=arguments.plain_http,
        ca=str(access.ca_file or ""),
    )
    # The account that was just made is remembered first: its secret is shown nowhere else.
    if arguments.bootstrap:
        accounts.remember(account)
    _try(account)
    accounts.remember(account)
    if arguments.json:
        shown = {"secret": account.secret} if arguments.bootstrap and arguments.show else {}
        as_json({"registry": account.registry, "account": account.name, **shown})
        return Exit.FINE
    line(f"{account.registry}: remembered account {account.name}")
    if arguments.bootstrap and arguments.show:
        line(f"secret: {account.secret}")
    return Exit.FINE


def _secret(arguments: argparse.Namespace) -> str:
    secret = shared.secret_from_stdin(f"secret of {arguments.account}: ")
    if not secret:
        raise UsageError(f"account {arguments.account}: got an empty secret")
    return secret


def _bootstrap(arguments: argparse.Namespace, access: Access) -> str:
    from ocispec import fields
    from ocispec.remote import Remote
    from pratique.control import Control

    token = shared.secret_from_stdin("one-time token: ")
    if not token:
        raise UsageError("bootstrap: got an empty token")
    with Remote(arguments.registry, access) as remote:
        made = Control(remote=remote).send("POST", "/bootstrap", {"token": token, "name": arguments.account})
    return fields.text(made, "secret", what=f"{arguments.registry}: bootstrap")


def _try(account: accounts.Account) -> None:
    from ocispec.errors import RemoteError
    from ocispec.remote import Remote
    from pratique.control import access_of

    with Remote(account.registry, access_of(account)) as remote:
        try:
            remote.get("/v2/", limit=1 << 16).close()
        except RemoteError as error:
            if error.status != 401:
                raise
            refused = f"registry {account.registry}: account {account.name}: got a secret that it refuses"
            raise CommandError(refused) from error
