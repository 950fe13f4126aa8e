"""Calling the command as a shell does, and an office: a registry, and everybody's keys in files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.key_files import write_private
from pratique.__main__ import main
from pratique.accounts import Account, remember
from tests.support.images import BuiltImage
from tests.support.live import WholeRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, parsed."""
        return json.loads(self.out)


def call(*arguments: object, stdin: str = "") -> Ran:
    """Run `pratique ARGUMENTS`, with `stdin` as its standard input."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdin = before
    return Ran(code=code, out=out.getvalue(), err=err.getvalue())


def good(*arguments: object, stdin: str = "") -> Ran:
    """Run it; it must end with 0."""
    ran = call(*arguments, stdin=stdin)
    assert ran.code == 0, ran
    return ran


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """A live registry, and a folder with the keys of officers and team as `NAME.key`."""

    live: WholeRegistry
    folder: Path

    @property
    def address(self) -> str:
        """The registry's name."""
        return self.live.address

    def key(self, owner: str) -> Path:
        """The private key file of an officer, or of `team`."""
        return self.folder / f"{owner}.key"

    def secret(self, account: str) -> str:
        """The secret of an account, as a line."""
        return self.live.secrets[account] + "\n"

    def push(self, repository: str, image: BuiltImage, tag: str = "1") -> str:
        """Push an image; its reference."""
        self.live.push(repository, image, tag)
        return f"{self.address}/{repository}:{tag}"


def office_at(live: WholeRegistry, folder: Path) -> Office:
    """Write the keys of `live` into files, and remember its accounts in `folder`/config."""
    for name, key in {**live.ring.officers, "team": live.ring.team, **live.ring.roots}.items():
        write_private(folder / f"{name}.key", key)
    (folder / "trust.json").write_bytes(live.ring.envelope)
    before = os.environ.get("PRATIQUE_CONFIG")
    os.environ["PRATIQUE_CONFIG"] = str(folder / "config")
    try:
        for name, secret in live.secrets.items():
            remember(Account(registry=live.address, name=name, secret=secret, plain_http=True))
    finally:
        if before is None:
            del os.environ["PRATIQUE_CONFIG"]
        else:
            os.environ["PRATIQUE_CONFIG"] = before
    return Office(live=live, folder=folder)
