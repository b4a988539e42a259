from django.db import migrations, models


class Migration(migrations.Migration):
    """Python names only: the column stays as it is, for processes of the version before."""

    dependencies = [("sessions_app", "0016_model_names")]

    operations = [
        migrations.AlterField(
            model_name="outbounddelivery",
            name="may_be_repeat",
            field=models.BooleanField(db_column="may_be_repeat", default=False),
        ),
        migrations.RenameField(model_name="outbounddelivery", old_name="may_be_repeat", new_name="possibly_sent"),
    ]
