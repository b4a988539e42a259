"""Starting over: nobody has said anything. Only where nobody but the playground's people ever did."""

from __future__ import annotations

from django.apps import apps
from django.db import connection, transaction
from django.utils.translation import gettext as _

from adapters import registry
from adapters.playground import watching
from adapters.playground.stage import PERSONAS
from identity.models import PlatformAccount

# The bots are still there and still receive, the log of what was done is kept for its time, and open pages must not
# hear an id twice.
_KEPT = {"identity.botprofile", "sessions_app.receiverlease", "identity.auditevent", "identity.liveevent"}


class NotOurs(Exception):
    """The database is not the playground's own. The text says why, to the person who wants to start over."""


def obstacle() -> str:
    """Why the database cannot be cleared; nothing if it can.

    It is the playground's own if no platform has a token, so that no real bot writes to it, and if every account in it
    is one of those that are played here.
    """
    if configured := [name for name in registry.names() if registry.get(name).needs and registry.is_configured(name)]:
        return _("Real bots use this database: a token is set for %(names)s.") % {"names": ", ".join(configured)}
    if PlatformAccount.objects.exclude(watching.is_persona(PERSONAS)).exists():
        return _("This database has people who don't belong to the playground.")
    return ""


@transaction.atomic
def clear() -> None:
    """Delete everybody and everything that was said. Raises NotOurs.

    What a worker has in its hands then is not written any more: the lease that it would give back is gone.
    """
    if reason := obstacle():
        raise NotOurs(reason)
    with connection.cursor() as cursor:
        for table in _tables():  # in any order: both databases look at foreign keys when the transaction ends
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")  # noqa: S608 - a model's own name


def _tables() -> list[str]:
    """Of everything that BotOS keeps, less what stays."""
    models = [model._meta for app in ("identity", "sessions_app") for model in apps.get_app_config(app).get_models()]
    return [model.db_table for model in models if model.label_lower not in _KEPT]
