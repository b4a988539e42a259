from django.db import migrations, models

import identity.support.clock


def take_over(apps, schema_editor):
    old, new = apps.get_model("identity", "GuessLimit"), apps.get_model("identity", "Guesser")
    kept = old.objects.values("account_id", "failures", "since", "locked_until", "locks")
    new.objects.bulk_create(
        (new(guesser=f"account {one.pop('account_id')}", **one) for one in kept.iterator()), batch_size=500
    )


def give_back(apps, schema_editor):
    old, new = apps.get_model("identity", "GuessLimit"), apps.get_model("identity", "Guesser")
    kept = new.objects.filter(guesser__startswith="account ")
    known = set(apps.get_model("identity", "PlatformAccount").objects.values_list("pk", flat=True))
    for one in kept.values("guesser", "failures", "since", "locked_until", "locks"):
        account_id = int(one.pop("guesser").removeprefix("account "))
        if account_id in known:
            old.objects.create(account_id=account_id, **one)


class Migration(migrations.Migration):
    """Who guesses is a text from now on, since a browser is known by its address alone."""

    dependencies = [
        ("identity", "0002_operator_permissions"),
    ]

    operations = [
        migrations.CreateModel(
            name="Guesser",
            fields=[
                ("guesser", models.CharField(max_length=80, primary_key=True, serialize=False)),
                ("failures", models.PositiveSmallIntegerField(default=0)),
                ("since", models.DateTimeField(default=identity.support.clock.EPOCH)),
                ("locked_until", models.DateTimeField(default=identity.support.clock.EPOCH)),
                ("locks", models.PositiveSmallIntegerField(default=0)),
            ],
            options={"verbose_name": "guess limit"},
        ),
        migrations.RunPython(take_over, give_back),
        migrations.DeleteModel(name="GuessLimit"),
        migrations.RenameModel("Guesser", "GuessLimit"),
    ]
