"""Remember an account of a registry. The secret is read from standard input, or asked for at a terminal.

pratique login registry.example:5000 --account alice < secret
pratique login 127.0.0.1:5000 --account alice --plain-http      HTTP without TLS: a loopback address only
pratique login registry.example:5000 --account alice --invitation
    for a person: reads the invitation, then the password that it is to have, and sets that
pratique login registry.example:5000 --account alice --change-password
    reads the password, then the new one, and sets that
pratique login registry.example:5000 --account host-1 --certificate host.pem --certificate-key host.key
    the registry knows who it is by its client certificate
pratique login registry.example:5000 --bootstrap --account admin < token
    makes the first admin account with the one-time token that `pratique serve` printed, and remembers it

The account is tried before it is remembered, in ~/.config/pratique/accounts.json ($PRATIQUE_CONFIG is another
folder), which only you can read. Where several accounts of one registry are remembered, the last one speaks unless
a verb is given --account. For a registry that is not remembered, the logins of docker and podman are used, if there
are any. `pratique logout` forgets.
"""

from __future__ import annotations

import argparse
import sys
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
    parser.add_argument("--invitation", action="store_true", help="set a person's first password; reads both")
    parser.add_argument("--change-password", action="store_true", help="set another password; reads the old one first")
    shared.add_certificate(parser)
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
    shown = shared.certificate(arguments)
    account = accounts.Account(
        registry=arguments.registry,
        name=arguments.account,
        secret=_secret(arguments, access) if shown is None else "",
        plain_http=arguments.plain_http,
        ca=str(access.ca_file or ""),
        certificate=str(shown.chain) if shown is not None else "",
        certificate_key=str(shown.key) if shown is not None else "",
    )
    # The account that was just made is remembered first: its secret is shown nowhere else.
    if arguments.bootstrap:
        accounts.remember(account)
    _try(account)
    accounts.remember(account)
    if arguments.json:
        extra = {"secret": account.secret} if arguments.bootstrap and arguments.show else {}
        as_json({"registry": account.registry, "account": account.name, **extra})
        return Exit.FINE
    line(f"{account.registry}: remembered account {account.name}")
    if arguments.bootstrap and arguments.show:
        line(f"secret: {account.secret}")
    return Exit.FINE


def _secret(arguments: argparse.Namespace, access: Access) -> str:
    """What the account is to be remembered with."""
    if arguments.bootstrap:
        return _bootstrap(arguments, access)
    if arguments.invitation or arguments.change_password:
        return _new_password(arguments, access)
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


def _new_password(arguments: argparse.Namespace, access: Access) -> str:
    from ocispec.remote import Remote
    from pratique.control import Control

    kind = "invitation" if arguments.invitation else "password"
    before = shared.secret_from_stdin(f"{kind} of {arguments.account}: ")
    new = shared.secret_from_stdin("new password: ")
    if not before or not new:
        raise UsageError(f"account {arguments.account}: expected its {kind}, and then the new password")
    if sys.stdin.isatty() and shared.secret_from_stdin("the same again: ") != new:
        raise UsageError(f"account {arguments.account}: the two passwords are different")
    with Remote(arguments.registry, access) as remote:
        Control(remote=remote).send("POST", "/password", {"name": arguments.account, kind: before, "new": new})
    return new


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
            got = "secret" if account.secret else "certificate"
            refused = f"registry {account.registry}: account {account.name}: got a {got} that it refuses"
            raise CommandError(refused) from error
