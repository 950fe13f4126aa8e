"""The config's user, looked up in the image's own passwd and group (attack X7)."""

from __future__ import annotations

import pytest

from ocispec.errors import LimitError, SpecError
from policy.statements import ResolvedUser
from policy.users import MAX_FILE, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
app:x:1000:1001:App,,,:/srv/app:/bin/false
1001:x:0:0:named like an id:/root:/bin/sh
broken:x:1002
far:x:4294967296:0::/:/bin/sh
nohome:x:7:7:::
app:x:0:0:second of that name:/:/bin/sh
"""
GROUP = b"""root:x:0:
app:x:1001:
disk:x:6:root,app
video:x:44:app
late:x:99999999999:other
"""


def _resolve(user: str, passwd: bytes | None = PASSWD, group: bytes | None = GROUP) -> ResolvedUser:
    return resolve_user(user, passwd=passwd, group=group)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", ResolvedUser(uid=0, gid=0, groups=(0, 6), home="/root")),
        ("root", ResolvedUser(uid=0, gid=0, groups=(0, 6), home="/root")),
        ("app", ResolvedUser(uid=1000, gid=1001, groups=(6, 44, 1001), home="/srv/app")),
        ("1000", ResolvedUser(uid=1000, gid=1001, groups=(6, 44, 1001), home="/srv/app")),
        ("app:disk", ResolvedUser(uid=1000, gid=6, home="/srv/app")),
        ("app:12", ResolvedUser(uid=1000, gid=12, home="/srv/app")),
        ("5000", ResolvedUser(uid=5000, gid=0, groups=(0,), home="/")),
        ("5000:5001", ResolvedUser(uid=5000, gid=5001, home="/")),
        ("nohome", ResolvedUser(uid=7, gid=7, groups=(7,), home="/")),
    ],
)
def test_user_is_found(user: str, expected: ResolvedUser) -> None:
    assert _resolve(user) == expected


def test_image_without_passwd_runs_as_a_number() -> None:
    assert _resolve("65532:65532", None, None) == ResolvedUser(uid=65532, gid=65532, home="/")
    assert _resolve("", None, None) == ResolvedUser(uid=0, gid=0, groups=(0,), home="/")


def test_x7_name_of_digits_stands_for_no_other_id() -> None:
    assert _resolve("1001").uid == 1001


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nobody", "no such user"),
        ("broken", "no such user"),
        ("app:nogroup", "no such group"),
        ("4294967296", "expected a number up to 2147483647"),
        ("4294967295", "expected a number up to 2147483647"),
        ("99999999999999999999999", "expected a number up to 2147483647"),
        ("0:4294967296", "expected a number up to 2147483647"),
        ("-1", "no such user"),
        ("far", "expected a number up to 2147483647"),
        (" 0", "no such user"),
        ("٣", "no such user"),
    ],
)
def test_x7_overflow_and_unknown_users_are_refused(user: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        _resolve(user)


def test_x7_huge_files_are_not_read() -> None:
    with pytest.raises(LimitError, match="/etc/group"):
        _resolve("app", group=b"x" * (MAX_FILE + 1))
    many = b"".join(b"g%d:x:%d:app\n" % (number, number) for number in range(2000))
    with pytest.raises(LimitError, match="in more than 1024 groups"):
        _resolve("app", group=many)
