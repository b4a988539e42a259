from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("identity", "0005_guess_times")]
    operations = [
        migrations.AddField(
            model_name="unifieduser",
            name="preferred",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="identity.platformaccount",
            ),
        ),
    ]
