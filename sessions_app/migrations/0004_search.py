from __future__ import annotations

from django.db import migrations

# The database keeps the index: no road to an entry can go past it. On SQLite a later migration that makes the table of
# entries anew takes the triggers away with the old one and must call `forwards` again.
_SQLITE = (
    """
    CREATE VIRTUAL TABLE sessions_app_entrysearch USING fts5(
        conversation_id, text,
        content='sessions_app_historyentry', content_rowid='id', tokenize='unicode61 remove_diacritics 2')
    """,
    """
    CREATE TRIGGER sessions_app_entrysearch_insert AFTER INSERT ON sessions_app_historyentry BEGIN
        INSERT INTO sessions_app_entrysearch (rowid, conversation_id, text)
        VALUES (new.id, new.conversation_id, new.text);
    END
    """,
    """
    CREATE TRIGGER sessions_app_entrysearch_delete AFTER DELETE ON sessions_app_historyentry BEGIN
        INSERT INTO sessions_app_entrysearch (sessions_app_entrysearch, rowid, conversation_id, text)
        VALUES ('delete', old.id, old.conversation_id, old.text);
    END
    """,
    """
    CREATE TRIGGER sessions_app_entrysearch_update
    AFTER UPDATE OF text, conversation_id ON sessions_app_historyentry BEGIN
        INSERT INTO sessions_app_entrysearch (sessions_app_entrysearch, rowid, conversation_id, text)
        VALUES ('delete', old.id, old.conversation_id, old.text);
        INSERT INTO sessions_app_entrysearch (rowid, conversation_id, text)
        VALUES (new.id, new.conversation_id, new.text);
    END
    """,
    "INSERT INTO sessions_app_entrysearch (sessions_app_entrysearch) VALUES ('rebuild')",
)
# What PostgreSQL would take for addresses and file names is searched for by its parts. The same text stands in search.py.
_POSTGRESQL = """
    CREATE INDEX entries_by_words ON sessions_app_historyentry
    USING gin (to_tsvector('simple', translate(left(text, 100000), '._-/@:~+=&?#', '            ')))
"""


def forwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(_POSTGRESQL)
        return
    backwards(apps, schema_editor)
    for statement in _SQLITE:
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX entries_by_words")
        return
    for event in ("insert", "delete", "update"):
        schema_editor.execute(f"DROP TRIGGER IF EXISTS sessions_app_entrysearch_{event}")
    schema_editor.execute("DROP TABLE IF EXISTS sessions_app_entrysearch")


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0003_historyentry_written_at")]
    operations = [migrations.RunPython(forwards, backwards)]
