"""Migration operations that make and drop indexes while others read and write the table.

For migrations with `atomic = False`. An interrupted migration can be run again, although PostgreSQL leaves an invalid
index behind, and everything before it.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations


class AddIndexOnline(migrations.AddIndex):
    """AddIndex, CONCURRENTLY on PostgreSQL."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            _drop(schema_editor, self.index.name)
            _add(schema_editor, model, self.index)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _drop(schema_editor, self.index.name)


class RemoveIndexOnline(migrations.RemoveIndex):
    """RemoveIndex, CONCURRENTLY on PostgreSQL."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _drop(schema_editor, self.name)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        state = to_state.models[app_label, self.model_name_lower]
        _drop(schema_editor, self.name)
        _add(schema_editor, model, state.get_index_by_name(self.name))


def _add(schema_editor: Any, model: Any, index: Any) -> None:
    options = {"concurrently": True} if schema_editor.connection.vendor == "postgresql" else {}
    schema_editor.add_index(model, index, **options)


def _drop(schema_editor: Any, name: str | None) -> None:
    online = "CONCURRENTLY " if schema_editor.connection.vendor == "postgresql" else ""
    schema_editor.execute(f"DROP INDEX {online}IF EXISTS {schema_editor.quote_name(name)}")


class RemoveFieldIndexOnline(migrations.AlterField):
    """AlterField to `db_index=False`: CONCURRENTLY on PostgreSQL, and without copying the table on SQLite."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            for name in _indexes_of(schema_editor, model, self.name):
                _drop(schema_editor, name)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        for name in _indexes_of(schema_editor, model, self.name):  # what an interrupted attempt left
            _drop(schema_editor, name)
        options = {"concurrently": True} if schema_editor.connection.vendor == "postgresql" else {}
        field = model._meta.get_field(self.name)
        schema_editor.execute(schema_editor._create_index_sql(model, fields=[field], **options))  # noqa: SLF001 - nothing public


def _indexes_of(schema_editor: Any, model: Any, field: str) -> list[str]:
    """The names of the plain indexes of this one column."""
    column = model._meta.get_field(field).column
    with schema_editor.connection.cursor() as cursor:
        found = schema_editor.connection.introspection.get_constraints(cursor, model._meta.db_table)
    return [name for name, one in found.items() if one["columns"] == [column] and one["index"] and not one["unique"]]
