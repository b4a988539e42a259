from django.db import migrations, models

from identity.support.online_indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('identity', '0010_person_name_is_chosen'),
    ]

    operations = [
        AddIndexOnline(
            model_name='pairing',
            index=models.Index(fields=['created_at', 'id'], name='requests_by_age'),
        ),
    ]
