"""The one clock that rules compare times by: the database's.

Workers' clocks may differ; PostgreSQL's is one for all. SQLite lives on one machine and has only milliseconds of its
own, so there the worker's clock, in microseconds, is the database's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper, Func, Value
from django.db.models.expressions import Combinable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # before everything: "no bound", "no lease"


class _Now(Func):
    """`clock_timestamp()`, which also moves inside a transaction."""

    template = "CLOCK_TIMESTAMP()"
    output_field = DateTimeField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        stamp = connection.ops.adapt_datetimefield_value(datetime.now(tz=UTC))
        return "%s", [stamp]


def now() -> Func:
    """The present moment, as an expression for `filter`, `update` and `create`."""
    return _Now()


def seconds_from_now(seconds: float) -> Combinable:
    """The moment `seconds` ahead (or behind, if negative), as an expression."""
    return ExpressionWrapper(now() + Value(timedelta(seconds=seconds)), output_field=DateTimeField())


def read() -> datetime:
    """The present moment as a value, aware, UTC: one query on PostgreSQL, none on SQLite."""
    if connection.vendor != "postgresql":
        return datetime.now(tz=UTC)
    with connection.cursor() as cursor:
        cursor.execute("SELECT CLOCK_TIMESTAMP()")
        moment: datetime = cursor.fetchone()[0]
    return moment.astimezone(UTC)
