"""The one place where the database's errors become the registry's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError, StatementError

from registry.errors import (
    CatalogueConflictError,
    CatalogueError,
    CatalogueLostError,
    RegistryError,
    StorageFullError,
    UnstorableError,
)

_DISK_FULL: Final = "53100"
_CONFLICTS: Final = frozenset({"40001", "40P01", "23503", "23505"})
"""PostgreSQL's SQLSTATEs (appendix A) of what another transaction was the cause of, if the statements are right:
serialization failure, deadlock, and a row that came or went between a look and the change that rests on it."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the database says as one of ours.

    Raises:
        StorageFullError: no room left.
        CatalogueConflictError: undone because of another transaction.
        CatalogueLostError: the connection was lost.
        UnstorableError: a value that was sent cannot be kept.
        CatalogueError: all else.
    """
    try:
        yield
    except DBAPIError as error:
        raise _of_database(error) from error
    except StatementError as error:
        if isinstance(error.orig, RegistryError):
            raise error.orig from error
        raise CatalogueError(f"catalogue: {error.orig}") from error
    except SQLAlchemyError as error:
        raise CatalogueError(f"catalogue: {error}") from error
    except OverflowError as error:
        raise UnstorableError(f"catalogue: a number is too large ({error})") from error


def _of_database(error: DBAPIError) -> RegistryError:
    text = " ".join(str(error.orig).split())
    state = getattr(error.orig, "sqlstate", None)
    if state == _DISK_FULL or "disk is full" in text or "No space left" in text:
        return StorageFullError(f"catalogue: no room left ({text})")
    if error.connection_invalidated:
        return CatalogueLostError(f"catalogue: connection lost ({text})")
    if state in _CONFLICTS:
        return CatalogueConflictError(f"catalogue: undone because of another transaction ({text})")
    if isinstance(error, DataError):
        return UnstorableError(f"catalogue: {text}")
    return CatalogueError(f"catalogue: {text}")
