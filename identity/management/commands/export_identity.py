"""Write the live links as a file that FileIdentityResolver and import_identity read."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from identity import resolvers
from identity.models import AccountLink


class Command(BaseCommand):
    help = (
        'Write the live links as {"links": {"telegram::12345": "alice"}}, to a file with mode 0600 or to standard '
        "output."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", default="-", help='replaced if it exists; "-" is standard output')

    def handle(self, *, file: str, **options: Any) -> None:
        rows = AccountLink.objects.live().order_by("pk")
        fields = ("account__platform", "account__platform_user_id", "user__unified_user_id")
        links = {(platform, account): person for platform, account, person in rows.values_list(*fields)}
        if file == "-":
            self.stdout.write(resolvers.render(links).decode(), ending="")
            return
        try:
            resolvers.replace_file(Path(file).expanduser(), resolvers.render(links))
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error.strerror}.") from error
        self.stderr.write(f"{len(links)} links written to {file}.")
