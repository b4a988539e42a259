"""The tables as the migrations leave them, after each test that commits.

Django's own way is to empty all tables and to announce a migration, upon which its apps write their rows again: many
times the work of a test. Here only what is there is deleted, and the rows of the migrations are put back as they were.
"""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction


class Emptied:
    """Knows what the tables hold now, and brings them back to it."""

    def __init__(self) -> None:
        quoted = connection.ops.quote_name
        with connection.cursor() as cursor:
            tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
            columns = {table: connection.introspection.get_table_description(cursor, table) for table in sorted(tables)}
        self._columns = {table: ", ".join(quoted(one.name) for one in found) for table, found in columns.items()}
        self._kept = {table: rows for table in self._columns if (rows := self._rows(table))}

    def bring_back(self) -> None:
        """Empty the tables, but for what they held at first."""
        with transaction.atomic():
            changed = self._changed()
            self._empty(changed)
            for table in sorted(self._kept.keys() & changed):
                self._fill(table, self._kept[table])
        ContentType.objects.clear_cache()

    def _changed(self) -> set[str]:
        others = self._columns.keys() - self._kept.keys()
        filled = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in others)
        with connection.cursor() as cursor:
            cursor.execute(filled)
            found = {table for (table,) in cursor.fetchall()}
        return found | {table for table, rows in self._kept.items() if self._rows(table) != rows}

    def _empty(self, tables: set[str]) -> None:
        """In any order: what rows refer to is looked at when all are gone."""
        with connection.cursor() as cursor:
            for table in sorted(tables):
                cursor.execute(f"DELETE FROM {table}")

    def _fill(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        places = ", ".join(["%s"] * len(rows[0]))
        with connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} ({self._columns[table]}) VALUES ({places})", rows)

    def _rows(self, table: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {self._columns[table]} FROM {table} ORDER BY 1")
            return list(cursor.fetchall())
