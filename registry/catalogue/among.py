"""Which of many values a column has, each looked up by an index."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from sqlalchemy import ARRAY, Column, Connection, bindparam, func, literal_column, select

T = TypeVar("T")


def among(conn: Connection, column: Column[T], values: Collection[T]) -> set[T]:
    """Those of `values` that some row has in `column`, which is the first of an index.

    PostgreSQL would answer IN with some hundred values by going through the whole table, as long as that is not very
    large; the OFFSET, of nothing, keeps it from it (it makes EXISTS a look-up for each value).
    """
    if not values:
        return set()
    if conn.dialect.name != "postgresql":
        return set(conn.scalars(select(column).where(column.in_(list(values)))))
    given: Any = bindparam("values", list(values), type_=ARRAY(column.type))
    wanted = func.unnest(given).column_valued("wanted")
    there = select(literal_column("1")).where(column == wanted).offset(0).exists()
    by_text = {str(value): value for value in values}
    return {by_text[found] for found in conn.scalars(select(wanted).where(there))}
