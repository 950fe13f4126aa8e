"""Version ranges, in each component's own order."""

from __future__ import annotations

import pytest

from policy.errors import PolicyError
from policy.ranges import Range


@pytest.mark.parametrize(
    ("text", "kind", "version", "inside"),
    [
        ("<1.2", "pypi", "1.1", True),
        ("<1.2", "pypi", "1.2rc1", True),
        ("<1.2", "pypi", "1.2", False),
        ("<=1.2", "pypi", "1.2", True),
        (">1.2", "pypi", "1.10", True),
        (">=1.2, <2", "pypi", "1.9", True),
        (">=1.2,<2", "pypi", "2", False),
        ("=1.2", "pypi", "1.2.0", True),
        ("<1:0.9", "deb", "2.0-1", True),
        ("<2.0-1", "deb", "2.0~rc1-1", True),
        (">=2.36-9+deb12u10", "deb", "2.36-9+deb12u4", False),
        ("<1", "pypi", "not a version", None),
        ("<what is this", "pypi", "1", None),
        ("<1", "npm", "0.1.0", None),
    ],
)
def test_a_version_is_inside_outside_or_cannot_be_told(text: str, kind: str, version: str, inside: bool | None) -> None:
    assert Range.parse(text).contains(kind, version) is inside


@pytest.mark.parametrize("text", ["", "1.2", "~1", "==1", "<", ">=1,", "<=>1", ",".join(["<1"] * 9)])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="version range"):
        Range.parse(text)


def test_a_range_is_shown_as_it_is_meant() -> None:
    assert str(Range.parse(">=1.2,<2")) == ">=1.2, <2"
