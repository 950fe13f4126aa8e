"""Column types: what a text, a digest and a time are on every database, and what of a text cannot be kept.

PostgreSQL refuses NUL and lone surrogates, and counts characters; SQLite takes everything. So that both keep the
same, the types check before the database does: a text that comes from a client is refused (`UnstorableError`, 400),
and one that the registry writes itself about hostile content is made fit by `storable`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from ocispec.digest import Digest
from registry.errors import UnstorableError


class BoundedText(TypeDecorator[str]):
    """Text of at most `length` characters, in byte order on every database: PostgreSQL's own order is its locale's."""

    impl = String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        """Without a length, as long as a row may be."""
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """The database's type."""
        kind: type[String] = Text if self.length is None else String
        return kind(self.length, collation="C" if dialect.name == "postgresql" else None)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text, if every database can keep it."""
        if value is None:
            return None
        text = str(value)
        if self.length is not None and len(text) > self.length:
            raise UnstorableError(f"text {text[:40]!r}: got {len(text)} characters, expected at most {self.length}")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UnstorableError(f"text {text[:80]!r}: not Unicode") from None
        if "\0" in text:
            raise UnstorableError(f"text {text[:80]!r}: got a NUL character, expected none")
        return text

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """The text."""
        return value


class DigestText(TypeDecorator[Digest]):
    """A digest, kept as `algorithm:hex` and parsed again on the way out."""

    impl = String(136)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """The database's type, in byte order."""
        return String(136, collation="C" if dialect.name == "postgresql" else None)

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> str | None:
        """A digest to text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Digest | None:
        """Text to a digest."""
        return None if value is None else Digest.parse(value)


class Moment(TypeDecorator[datetime]):
    """An aware time in UTC, kept as whole seconds since the epoch."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """A time to seconds; a naive one is a programming error, and raises."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()}: expected a time zone")
        return None if value is None else int(value.timestamp())

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Seconds to a time."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


def bytewise(length: int | None = None) -> BoundedText:
    """Text of at most `length` characters, compared and sorted by its bytes."""
    return BoundedText(length)


def storable(text: str, limit: int) -> str:
    """A text as every database keeps it, of at most `limit` characters: what it cannot keep is shown, not believed."""
    clean = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
