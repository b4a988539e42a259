from django.db import migrations, models
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce

import identity.support.clock


def date(apps, schema_editor):
    """What is there was written when it was said, a reply when its message was done."""
    entries, events = apps.get_model("sessions_app", "HistoryEntry"), apps.get_model("sessions_app", "InboundEvent")
    entries.objects.update(written_at=F("said_at"))
    done_at = Subquery(events.objects.filter(pk=OuterRef("event")).values("done_at")[:1])
    replies = entries.objects.filter(source="reply", event__isnull=False)
    replies.update(written_at=Coalesce(done_at, F("said_at")))


class Migration(migrations.Migration):
    """When an entry was written, so that a reply that was written in a disowned link is known by it."""

    dependencies = [
        ("sessions_app", "0002_drafts"),
    ]

    operations = [
        # The default is an expression, which no column can be added with: so with a moment, and none is left with it.
        migrations.SeparateDatabaseAndState(
            [
                migrations.AddField(
                    model_name="historyentry",
                    name="written_at",
                    field=models.DateTimeField(default=identity.support.clock.EPOCH, editable=False),
                ),
            ],
            [
                migrations.AddField(
                    model_name="historyentry",
                    name="written_at",
                    field=models.DateTimeField(default=identity.support.clock.now, editable=False),
                ),
            ],
        ),
        migrations.RunPython(date, migrations.RunPython.noop),
    ]
