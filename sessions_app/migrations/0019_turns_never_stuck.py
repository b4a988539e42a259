from django.db import migrations, models

from identity.support.online_columns import AddColumnOnline


class Migration(migrations.Migration):

    dependencies = [('sessions_app', '0018_entries_of_an_author')]

    operations = [
        AddColumnOnline(
            model_name='historyentry',
            name='is_withheld',
            field=models.BooleanField(db_default=False, default=False),
        ),
        AddColumnOnline(
            model_name='inboundevent',
            name='input_tokens',
            field=models.PositiveIntegerField(null=True),
        ),
        AddColumnOnline(
            model_name='inboundevent',
            name='model',
            field=models.CharField(blank=True, db_default='', default='', max_length=100),
        ),
        AddColumnOnline(
            model_name='inboundevent',
            name='output_tokens',
            field=models.PositiveIntegerField(null=True),
        ),
        AddColumnOnline(
            model_name='inboundevent',
            name='ready_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
        AddColumnOnline(
            model_name='inboundevent',
            name='reason',
            field=models.CharField(blank=True, db_default='', default='', max_length=300),
        ),
        AddColumnOnline(
            model_name='lane',
            name='stop_fence',
            field=models.PositiveBigIntegerField(null=True),
        ),
    ]
