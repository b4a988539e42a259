"""Makes Django ready for a plain script: `import botos_project.setup` before anything of BotOS."""

from __future__ import annotations

import os

import django
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from botos_project import mistakes
from identity.support import db_errors, sql


def ready() -> None:
    """Load the settings and the apps, and make sure that the database has all its tables."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botos_project.settings")
    mistakes.explain()
    django.setup()
    require_migrated()


def require_migrated() -> None:
    if _missing_migrations():
        raise ImproperlyConfigured(db_errors.NO_TABLES)


def _missing_migrations() -> bool:
    try:
        with sql.briefly_connected():
            executor = MigrationExecutor(connection)
    except OperationalError as error:  # not chained: a driver's message may quote the connection string
        raise ImproperlyConfigured(db_errors.sentence_of(error) or "The database cannot be used.") from None
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


ready()
