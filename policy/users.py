"""Who the config's `User` is: looked up in the image's own passwd and group, when it is judged and when it is pulled.

Image specification 1.1, config.md, "User": `user`, `uid`, `user:group`, `uid:gid`, `uid:group`, `user:gid`; without
a group, the user's own and those that list it in /etc/group. What is all digits is an id, never a name, so a
passwd entry called "1000" cannot stand for another id. Ids are bounded (X7: one beyond 2^31 became root), and so
are the files (CVE-2026-47262: a huge /etc/group).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ocispec.errors import LimitError, SpecError
from policy.statements import ResolvedUser

MAX_FILE: Final = 1024 * 1024
"""Bytes of passwd or group that are read: 10,000 users have about 600 KB."""

MAX_ID: Final = 2**31 - 1
MAX_GROUPS: Final = 1024
"""Groups that one user is in; NFS and most tools stop earlier."""

_DIGITS: Final = re.compile(rb"[0-9]+", re.ASCII)


def resolve_user(user: str, *, passwd: bytes | None, group: bytes | None) -> ResolvedUser:
    """Return who `user` is; the files are None where the image has none (or no regular one).

    Raises:
        LimitError: a file is larger than MAX_FILE, or the user is in too many groups.
        SpecError: no such user or group, or an id beyond MAX_ID.
    """
    name, colon, group_name = user.partition(":")
    what = f"config user {user[:80]!r}"
    wanted = name.encode("utf-8", "surrogateescape") or b"0"
    entry = _find_user(wanted, _checked(passwd, "/etc/passwd"), what)
    if entry is None:
        if _DIGITS.fullmatch(wanted) is None:
            raise SpecError(f"{what}: no such user in the image's /etc/passwd")
        entry = (b"", _id(wanted, what), 0, b"/")
    login, uid, gid, home = entry
    groups = _checked(group, "/etc/group")
    if colon:
        return ResolvedUser(uid=uid, gid=_find_group(group_name, groups, what), groups=(), home=_text(home))
    return ResolvedUser(uid=uid, gid=gid, groups=_groups_of(login, gid, groups, what), home=_text(home))


def _checked(content: bytes | None, path: str) -> bytes:
    if content is not None and len(content) > MAX_FILE:
        raise LimitError(f"{path} of the image: more than {MAX_FILE} bytes")
    return content or b""


def _lines(content: bytes, count: int) -> Iterator[list[bytes]]:
    for line in content.split(b"\n"):
        fields = line.split(b":")
        # Comments and lines of another form are passed over, as getpwnam(3) does.
        if len(fields) == count and fields[0] and not fields[0].startswith((b"#", b"+", b"-")):
            yield fields


def _find_user(wanted: bytes, passwd: bytes, what: str) -> tuple[bytes, int, int, bytes] | None:
    by_id = _DIGITS.fullmatch(wanted) is not None
    number = _id(wanted, what) if by_id else -1
    for login, _, uid, gid, _, home, _ in _lines(passwd, 7):
        if (by_id and _DIGITS.fullmatch(uid) is not None and int(uid[:20]) == number) or (
            not by_id and login == wanted
        ):
            return login, _id(uid, what), _id(gid, what), home or b"/"
    return None


def _find_group(name: str, group: bytes, what: str) -> int:
    wanted = name.encode("utf-8", "surrogateescape")
    if _DIGITS.fullmatch(wanted) is not None:
        return _id(wanted, what)
    for found, _, gid, _ in _lines(group, 4):
        if found == wanted:
            return _id(gid, what)
    raise SpecError(f"{what}: no such group in the image's /etc/group")


def _groups_of(login: bytes, gid: int, group: bytes, what: str) -> tuple[int, ...]:
    found = {gid}
    if login:
        for _, _, number, members in _lines(group, 4):
            if login in members.split(b","):
                found.add(_id(number, what))
                if len(found) > MAX_GROUPS:
                    raise LimitError(f"{what}: in more than {MAX_GROUPS} groups")
    return tuple(sorted(found))


def _id(digits: bytes, what: str) -> int:
    if _DIGITS.fullmatch(digits) is None or len(digits) > 10 or int(digits) > MAX_ID:
        shown = digits[:40].decode("ascii", "backslashreplace")
        raise SpecError(f"{what}: id {shown!r}, expected a number up to {MAX_ID}")
    return int(digits)


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise SpecError(f"home folder {path[:80]!r}: not UTF-8") from None
