"""`manage.py bootstrap`: everything that must be there before the first start. Safe to run again."""

from __future__ import annotations

import os
import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Create the tables, and the first operator if there is none."

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # the database is made now, and what people write is nobody else's business
        call_command("migrate", verbosity=0, interactive=False)
        users = get_user_model().objects
        if users.filter(is_superuser=True).exists():
            return
        password = secrets.token_urlsafe(12)
        users.create_superuser("operator", password=password)
        self.stdout.write(f"Your login for /admin/: operator, password {password} (shown only once; change it there)")
