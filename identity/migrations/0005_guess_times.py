from django.db import migrations, models


def keep(apps, schema_editor):
    """As many wrong codes as were counted, all at the moment of the first."""
    limits = apps.get_model("identity", "GuessLimit").objects
    for limit in limits.exclude(failures=0).iterator():
        limits.filter(pk=limit.pk).update(times=[limit.last_at.timestamp()] * limit.failures)


def give_back(apps, schema_editor):
    limits = apps.get_model("identity", "GuessLimit").objects
    for limit in limits.iterator():
        limits.filter(pk=limit.pk).update(failures=len(limit.times))


class Migration(migrations.Migration):
    """The times of the last wrong codes, and not only how many: they are counted over any span of the window's length."""

    dependencies = [
        ("identity", "0004_browsers"),
    ]

    operations = [
        migrations.AddField(model_name="guesslimit", name="times", field=models.JSONField(default=list)),
        migrations.RenameField(model_name="guesslimit", old_name="since", new_name="last_at"),
        migrations.RunPython(keep, give_back),
        migrations.RemoveField(model_name="guesslimit", name="failures"),
    ]
