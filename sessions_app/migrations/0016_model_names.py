from django.db import migrations

LABELS = {"pollerlease": "poller", "tally": "tally", "receiverlease": "receiver lease", "counter": "counter"}
NEW_NAMES = {"pollerlease": "receiverlease", "tally": "counter"}


def rename_permissions(apps, schema_editor, names=NEW_NAMES):
    """People keep the permissions that they have.

    Django renames the content type of a model, but leaves its permissions as they are, and adds new ones that nobody
    has.
    """
    permissions = apps.get_model("auth", "Permission").objects.using(schema_editor.connection.alias)
    for old, new in names.items():
        for action in ("add", "change", "delete", "view"):
            old_ones = permissions.filter(content_type__app_label="sessions_app", codename=f"{action}_{old}")
            old_ones.update(codename=f"{action}_{new}", name=f"Can {action} {LABELS[new]}")


def rename_permissions_back(apps, schema_editor):
    rename_permissions(apps, schema_editor, {new: old for old, new in NEW_NAMES.items()})


class Migration(migrations.Migration):
    """Python names only: the tables stay as they are, for processes of the version before.

    Each table is named first, or it would be renamed with its model. RenameModel stands on the top level, as Django
    looks for it only there when it renames content types.
    """

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("sessions_app", "0015_indexes_of_what_is_due"),
    ]

    operations = [
        migrations.AlterModelTable(name="pollerlease", table="sessions_app_pollerlease"),
        migrations.RenameModel(old_name="PollerLease", new_name="ReceiverLease"),
        migrations.AlterModelOptions(name="receiverlease", options={"verbose_name": "receiver lease"}),
        migrations.AlterModelTable(name="tally", table="sessions_app_tally"),
        migrations.RenameModel(old_name="Tally", new_name="Counter"),
        migrations.AlterModelOptions(name="counter", options={"verbose_name": "counter"}),
        migrations.RunPython(rename_permissions, rename_permissions_back),
    ]
