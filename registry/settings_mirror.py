"""The settings of pull-through: which repositories are copies of another registry's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from registry import settings_checks as checks
from registry.errors import SettingsError
from registry.settings_checks import Key, choice, number

MAX_MIRRORS: Final = 64
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorSettings:
    """`mirrors[]`: what lies below one prefix is fetched from one registry when it is first asked for."""

    prefix: Annotated[
        str, Key("Repositories below it are copies, e.g. `hub/`; nothing is pushed to them.", checks.prefix)
    ]
    registry: Annotated[str, Key("The registry that they are copies of, `host` or `host:port`.", checks.registry_name)]
    below: Annotated[str, Key("Put in front of the rest of the name there, e.g. `library/`.", checks.prefix)] = ""
    scheme: Annotated[str, Key("`https`; `http` only to an address of this machine.", choice("https", "http"))] = (
        "https"
    )
    ca_file: Annotated[Path | None, Key("Certificates to check it by, not the system's.", checks.path)] = None
    account: Annotated[str, Key("Account there.", checks.text)] = ""
    secret_file: Annotated[
        Path | None, Key("File with the account's secret, that its owner alone may read.", checks.path)
    ] = None
    token_hosts: Annotated[
        tuple[str, ...],
        Key("Hosts that the secret may go to if the registry names one as its token service.", checks.hosts),
    ] = ()
    refresh: Annotated[
        int, Key("Seconds after which a tag that is asked for is looked up there again.", number(1, 366 * _DAY))
    ] = 3600
    wait: Annotated[
        int, Key("Seconds that a request waits for what is fetched; then it is answered 503.", number(0, 600))
    ] = 20


def check_mirrors(mirrors: Sequence[MirrorSettings], name: str) -> None:
    """Check that each repository is a copy of one thing.

    Raises:
        SettingsError: it is not.
    """
    for position, mirror in enumerate(mirrors):
        if mirror.registry == name:
            raise SettingsError(f"setting mirrors: {mirror.prefix} is a copy of this registry itself")
        if bool(mirror.account) != (mirror.secret_file is not None):
            raise SettingsError(f"setting mirrors: {mirror.prefix}: expected account and secret_file, or neither")
        for other in mirrors[:position]:
            if mirror.prefix.startswith(other.prefix) or other.prefix.startswith(mirror.prefix):
                raise SettingsError(f"setting mirrors: {other.prefix} and {mirror.prefix}: one lies below the other")
