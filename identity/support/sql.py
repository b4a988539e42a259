"""Plain SQL, for the statements that every message runs. Everything else uses Django's ORM.

The ORM needs several times as long to build such a statement as the database needs to run it. Placeholders are `%s`.
The text of a statement should depend on as little as possible, as drivers prepare statements by their text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model

from identity.support.clock import Moment

MAX_ROWS = 500  # in one INSERT: PostgreSQL takes 65,535 parameters, SQLite 32,766


@contextmanager
def briefly_connected() -> Iterator[None]:
    """At the end, close this thread's connection if it was not open before. Else it stays for the thread's life."""
    was_open = connection.connection is not None
    try:
        yield
    finally:
        if not was_open:
            connection.close()


def run(statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Execute a statement. Return its rows, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def run_many(statement: str, rows: Sequence[Sequence[Any]]) -> int:
    """Execute a statement once for each row of values, in one round trip. Return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.executemany(statement, rows)
        return int(cursor.rowcount)


def among(column: str, values: Collection[Any]) -> tuple[str, list[Any]]:
    """The condition that `column` is one of these values, and its parameters."""
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)", [list(values)]
    return f"{column} IN ({', '.join(['%s'] * len(values))})", list(values)


def locking(clause: str) -> str:
    """A clause such as `FOR UPDATE`. On SQLite a transaction holds the only lock from its beginning."""
    return clause if connection.features.has_select_for_update else ""


def insert(model: type[Model], rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows, all with values for the same columns. Return their primary keys in order.

    A column's value is as the driver takes it, an aware datetime, or a moment of `identity.support.clock`.
    """
    keys: list[int] = []
    for first in range(0, len(rows), MAX_ROWS):
        some = rows[first : first + MAX_ROWS]
        places: list[str] = []
        values: list[Any] = []
        for row in some:
            place, value = zip(*map(_place, row.values()), strict=True)
            places.append(f"({', '.join(place)})")
            values.extend(value)
        table, columns = model._meta.db_table, ", ".join(some[0])
        statement = f"INSERT INTO {table} ({columns}) VALUES {', '.join(places)} RETURNING id"  # noqa: S608 - names of our own
        keys += [key for (key,) in run(statement, values)]
    return keys


def _place(value: Any) -> tuple[str, Any]:
    if isinstance(value, Moment):
        return value.statement()
    return "%s", moment(value) if isinstance(value, datetime) else value


def moment(value: datetime) -> Any:
    """An aware datetime as the database stores it."""
    return connection.ops.adapt_datetimefield_value(value)


def columns(model: type[Model], alias: str) -> str:
    """All columns of a table, for `load`."""
    return ", ".join(f"{alias}.{field.column}" for field in model._meta.concrete_fields)


def load(row: Sequence[Any], *models: type[Model]) -> Iterator[Any]:
    """The instances that a row of `columns` of these models makes, as the ORM would load them."""
    place = 0
    for model in models:
        names, converters = _fields(model, connection.vendor)
        values = list(row[place : place + len(names)])
        for number, convert in converters:
            values[number] = convert(values[number])
        place += len(names)
        yield model.from_db(connection.alias, names, values)


@functools.cache
def _fields(model: type[Model], vendor: str) -> tuple[list[str], list[tuple[int, Callable[[Any], Any]]]]:
    """The names of the model's fields, and the conversions that `vendor` needs, each with the field's number."""
    fields = model._meta.concrete_fields
    columns = [field.get_col(model._meta.db_table) for field in fields]
    conversions: list[tuple[int, Callable[[Any], Any]]] = [
        (number, functools.partial(_converted, convert, column))
        for number, column in enumerate(columns)
        for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
    ]
    return [field.attname for field in fields], conversions


def _converted(convert: Any, column: Any, value: Any) -> Any:
    return convert(value, column, connection)
