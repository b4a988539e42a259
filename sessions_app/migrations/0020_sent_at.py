from django.db import migrations, models

from identity.support.online_columns import AddColumnOnline


class Migration(migrations.Migration):

    dependencies = [('sessions_app', '0019_turns_never_stuck')]

    operations = [
        AddColumnOnline(
            model_name='inboundevent',
            name='sent_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
    ]
