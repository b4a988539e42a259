"""A migration operation that adds a column while others read and write the table."""

from __future__ import annotations

from typing import Any

from django.db import migrations


class AddColumnOnline(migrations.AddField):
    """AddField for a column that is empty or has a constant `db_default`, without copying the table on SQLite.

    Django copies the table for every column that may not be empty. That takes long, and loses triggers.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            field = model._meta.get_field(self.name)
            definition, values = schema_editor.column_sql(model, field)
            names = {"table": schema_editor.quote_name(model._meta.db_table), "column": field.column}
            names["column"] = schema_editor.quote_name(names["column"])
            schema_editor.execute("ALTER TABLE {table} ADD COLUMN {column} ".format(**names) + definition, values)
