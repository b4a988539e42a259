import django.db.models.deletion
from django.db import migrations, models

from identity.support.online_indexes import AddIndexOnline, RemoveFieldIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('identity', '0011_requests_by_age'),
        ('sessions_app', '0017_possibly_sent'),
    ]

    operations = [
        AddIndexOnline(
            model_name='historyentry',
            index=models.Index(condition=models.Q(('author__isnull', False)), fields=['author', 'conversation', 'said_at'], name='entries_of_an_author'),
        ),
        RemoveFieldIndexOnline(
            model_name='historyentry',
            name='author',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='identity.platformaccount'),
        ),
    ]
