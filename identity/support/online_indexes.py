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
