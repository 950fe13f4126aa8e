"""Whether there is a row, asked for each row of a page by an index."""

from __future__ import annotations

from sqlalchemy import ColumnElement, literal_column, select


def there_is(*where: ColumnElement[bool]) -> ColumnElement[bool]:
    """EXISTS, of which PostgreSQL cannot make a hash of a whole table.

    It would do that for a page of a few hundred rows, since it reckons with all rows behind the page too; an OFFSET, of
    nothing, keeps it from it.
    """
    return select(literal_column("1")).where(*where).offset(0).exists()
