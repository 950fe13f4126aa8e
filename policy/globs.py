"""Globs: the only patterns a policy or waiver may hold. No regular expressions, and no backtracking.

`*` stands for any run of characters without a slash, `**` for any run at all; everything else is itself.
A match costs at most one step of a bit-parallel automaton for each character of the text (Baeza-Yates and
Gonnet, "A new approach to text searching", 1992), whatever the pattern, so a hostile name cannot make it slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from policy.errors import PolicyError

MAX_PATTERN = 512
"""Characters of a pattern."""

MAX_TEXT = 8192
"""Characters of a text; a longer one matches nothing but the pattern `**`."""

_ANY = "**"
_PART = "*"


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled pattern; equal if the pattern's text is equal."""

    pattern: str
    matches: Callable[[str], bool] = field(compare=False, repr=False)
    """True if the whole of a text fits the pattern."""

    @classmethod
    def compile(cls, pattern: str) -> Glob:
        """Return the matcher of `pattern`.

        Raises:
            PolicyError: it is empty, longer than MAX_PATTERN, or has three asterisks in a row.
        """
        if not 0 < len(pattern) <= MAX_PATTERN:
            raise PolicyError(f"glob: got {len(pattern)} characters, expected 1 to {MAX_PATTERN}")
        if "***" in pattern:
            raise PolicyError(f"glob {pattern[:80]!r}: got three asterisks in a row, expected `*` or `**`")
        return cls(pattern, _matcher(pattern))

    def __str__(self) -> str:
        return self.pattern


def _matcher(pattern: str) -> Callable[[str], bool]:
    """The cheapest function that decides `pattern`: most patterns are a name, a prefix, or everything."""
    if pattern == _ANY:
        return lambda _text: True
    if _PART not in pattern:
        return lambda text: text == pattern
    head = pattern.rstrip(_PART)
    if _PART not in head:
        if pattern.endswith(_ANY):
            return lambda text: len(text) <= MAX_TEXT and text.startswith(head)
        start = len(head)
        return lambda text: len(text) <= MAX_TEXT and text.startswith(head) and "/" not in text[start:]
    return _automaton(_tokens(pattern))


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(pattern):
        token = _ANY if pattern.startswith(_ANY, position) else pattern[position]
        tokens.append(token)
        position += len(token)
    return tokens


def _automaton(tokens: list[str]) -> Callable[[str], bool]:
    """Bit i of the state: the text so far fits tokens[:i]."""
    characters: dict[str, int] = {}
    part = everything = 0
    for position, token in enumerate(tokens):
        if token == _ANY:
            everything |= 1 << position
        elif token == _PART:
            part |= 1 << position
        else:
            characters[token] = characters.get(token, 0) | 1 << position
    wild = part | everything
    final = 1 << len(tokens)
    pieces = "".join(token if token not in {_ANY, _PART} else "\0" for token in tokens).split("\0")
    prefix, longest = pieces[0], max(pieces, key=len)

    def matches(text: str) -> bool:
        # Most texts lack the pattern's longest piece, which is found out in a fraction of the time.
        if longest not in text or len(text) > MAX_TEXT or not text.startswith(prefix):
            return False
        state = _skip(1, wild)
        for character in text:
            step = (state & characters.get(character, 0)) << 1
            state = _skip(step | (state & (everything if character == "/" else wild)), wild)
            if not state:
                return False
        return bool(state & final)

    return matches


def _skip(state: int, wild: int) -> int:
    """A wildcard may stand for nothing: from before it, one is after it too. Two in a row cannot occur."""
    return state | (state & wild) << 1


def any_of(globs: tuple[Glob, ...]) -> Callable[[str], bool]:
    """A function that is true for a text which one of `globs` fits; for none of them if there are none."""
    exact = frozenset(glob.pattern for glob in globs if _PART not in glob.pattern)
    others = tuple(glob.matches for glob in globs if _PART in glob.pattern)
    return lambda text: text in exact or any(matches(text) for matches in others)
