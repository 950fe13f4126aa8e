"""Licence expressions (SPDX specification 2.3, annex D), and whether a list of licences permits one.

`OR` is a choice: one permitted side is enough. `AND` binds both. `X WITH E` is permitted where the list names it,
or names X: an exception only adds permissions. `X+` is permitted where X is. A `LicenseRef-` is nobody's but the
document's that made it, so it is only ever equal to itself.

`license_expression` is imported when the first expression is read: a host at start never reads one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from policy.errors import PolicyError
from policy.globs import Glob, any_of

if TYPE_CHECKING:
    from license_expression import Licensing

MAX_EXPRESSION: Final = 2000
"""Characters of an expression that we read; longer ones are unknown licences."""

_REFERENCES: Final = ("LicenseRef-", "DocumentRef-")


@dataclass(frozen=True, slots=True)
class Licence:
    """One licence of an expression, in its canonical spelling, with an exception or "" and `+` or not."""

    id: str
    exception: str = ""
    or_later: bool = False

    def __str__(self) -> str:
        return f"{self.id}{'+' if self.or_later else ''}{f' WITH {self.exception}' if self.exception else ''}"


@dataclass(frozen=True, slots=True)
class Choice:
    """`OR`: one of these."""

    of: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """`AND`: all of these."""

    of: tuple[Expression, ...]


Expression = Licence | Choice | Bundle


_LIBRARY_ERRORS: Final = (RecursionError, ValueError, TypeError, AttributeError, LookupError)


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> Expression | None:
    """Return the expression that `text` spells; None if it is empty, too long, malformed, or names an unknown id."""
    from license_expression import ExpressionError, ExpressionParseError  # noqa: PLC0415  # see the module's text

    if not 0 < len(text) <= MAX_EXPRESSION:
        return None
    try:
        return _read(_licensing().parse(text, validate=False, strict=True))
    except (ExpressionError, ExpressionParseError, PolicyError, *_LIBRARY_ERRORS):
        # The library lets errors of its own out on some malformed input.
        return None


def licences_of(expression: Expression) -> tuple[Licence, ...]:
    """Every licence in `expression`, in order."""
    if isinstance(expression, Licence):
        return (expression,)
    return tuple(licence for part in expression.of for licence in licences_of(part))


@dataclass(frozen=True, slots=True)
class LicenceList:
    """Which licences are permitted; `allow` empty means: all but the denied."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]

    def permits(self) -> Callable[[Expression], bool]:
        """The function that decides an expression.

        Raises:
            PolicyError: an item names an unknown licence.
        """
        allowed = _matcher(self.allow) if self.allow else lambda _licence: True
        denied = _matcher(self.deny)
        exact = frozenset(canonical_item(item) for item in self.allow)

        def permits(expression: Expression) -> bool:
            match expression:
                case Licence():
                    # A licence with an exception that is allowed by name is not denied for its licence's sake.
                    named = bool(expression.exception) and str(expression) in exact
                    return allowed(expression) and (named or not denied(expression))
                case Choice(of=parts):
                    return any(permits(part) for part in parts)
                case Bundle(of=parts):
                    return all(permits(part) for part in parts)

        return permits


def canonical_item(item: str) -> str:
    """The canonical spelling of a list's item: one licence, `X WITH E`, or a glob over ids.

    Raises:
        PolicyError: it names an unknown licence, or holds an operator.
    """
    if "*" in item:
        return Glob.compile(item).pattern
    expression = parse_expression(item)
    if not isinstance(expression, Licence):
        raise PolicyError(f"licence {item[:80]!r}: expected one SPDX licence id, `id WITH exception`, or a glob")
    return str(expression)


def _matcher(items: tuple[str, ...]) -> Callable[[Licence], bool]:
    globs = any_of(tuple(Glob.compile(canonical_item(item)) for item in items))

    def matches(licence: Licence) -> bool:
        if globs(str(licence)):
            return True
        bare = Licence(licence.id)
        return bare != licence and globs(str(bare))

    return matches


@cache
def _licensing() -> Licensing:
    """The SPDX ids alone: the library's own list also reads some LicenseRefs as other names of real licences."""
    from license_expression import LicenseSymbol, Licensing, get_license_index  # noqa: PLC0415  # as above

    symbols = []
    for entry in get_license_index():
        key = entry.get("spdx_license_key") or ""
        if key and not key.startswith(_REFERENCES):
            others = entry.get("other_spdx_license_keys", [])
            aliases = tuple(other for other in others if not other.startswith(_REFERENCES))
            symbols.append(LicenseSymbol(key, aliases=aliases, is_exception=entry.get("is_exception", False)))
    return Licensing(symbols)


@cache
def _known() -> frozenset[str]:
    return frozenset(_licensing().known_symbols)


def _read(node: object) -> Expression:
    """The library's tree as ours.

    Raises:
        PolicyError: an unknown id.
    """
    import license_expression as library  # noqa: PLC0415  # as above

    if isinstance(node, library.LicenseWithExceptionSymbol):
        licence = _licence(node.license_symbol.key)
        return Licence(licence.id, exception=_exception(node.exception_symbol.key), or_later=licence.or_later)
    if isinstance(node, library.LicenseSymbol):
        return _licence(node.key)
    if isinstance(node, library.OR):
        return Choice(tuple(_read(part) for part in node.args))
    if isinstance(node, library.AND):
        return Bundle(tuple(_read(part) for part in node.args))
    raise PolicyError("licence expression: empty")


def _licence(key: str) -> Licence:
    if key in _known() or (key.startswith(_REFERENCES) and " " not in key):
        return Licence(key)
    if key.endswith("+") and key[:-1] in _known():
        return Licence(key[:-1], or_later=True)
    raise PolicyError(f"licence {key[:80]!r}: unknown")


def _exception(key: str) -> str:
    if key not in _known():
        raise PolicyError(f"licence exception {key[:80]!r}: unknown")
    return key
