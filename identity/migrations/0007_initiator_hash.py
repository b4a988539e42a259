from django.db import migrations, models


class Migration(migrations.Migration):
    """Whoever is forgotten and comes back has started already. Requests from before, and those that processes of the
    version before still begin, have no hash and are not counted: for a day at most.
    """

    dependencies = [("identity", "0006_preferred")]

    operations = [
        migrations.AddField(
            model_name="pairing",
            name="initiator_hash",
            field=models.CharField(blank=True, db_default="", default="", editable=False, max_length=64),
        ),
        migrations.RemoveIndex(model_name="pairing", name="requests_of_an_initiator"),
        migrations.RemoveIndex(model_name="pairing", name="strikes"),
        migrations.AddIndex(
            model_name="pairing",
            index=models.Index(fields=["initiator_hash", "created_at"], name="requests_of_an_initiator"),
        ),
    ]
