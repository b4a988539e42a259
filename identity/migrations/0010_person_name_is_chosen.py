from django.db import migrations, models
from django.db.models import Exists, OuterRef

BY_OPERATORS = ("person_added", "person_renamed", "person_imported")


def mark_chosen(apps, schema_editor):
    """The audit log tells whose name an operator chose."""
    people = apps.get_model("identity", "UnifiedUser")
    chosen = apps.get_model("identity", "AuditEvent").objects.filter(
        kind__in=BY_OPERATORS, unified_user_id=OuterRef("unified_user_id")
    )
    people.objects.filter(Exists(chosen)).update(is_name_chosen=True)


class Migration(migrations.Migration):
    """Processes of the version before leave the field alone: what an operator names through them counts as the name of
    an account, and goes with that account.
    """

    dependencies = [("identity", "0009_indexes_of_what_is_due")]

    operations = [
        migrations.AddField(
            model_name="unifieduser",
            name="is_name_chosen",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        migrations.RunPython(mark_chosen, migrations.RunPython.noop),
    ]
