"""Makes Django ready for a plain script: `import botos_project.setup` before anything of BotOS."""

from __future__ import annotations

import os

import django
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.migrations.executor import MigrationExecutor

from botos_project.env import BadSetting


def ready() -> None:
    """Load the settings and the apps, and make sure that the database has all its tables."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botos_project.settings")
    django.setup()
    require_migrated()


def require_migrated() -> None:
    if _missing_migrations():
        raise BadSetting("E009", "The database has no tables, or old ones.", hint="run python manage.py migrate")


def _missing_migrations() -> bool:
    try:
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    except OperationalError as error:  # not chained: a driver's message may quote the connection string
        problem = f"The database cannot be opened ({type(error).__name__})."
        raise BadSetting("E010", problem, hint="check DATABASE_URL and BOTOS_DATA_DIR.") from None
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


ready()
