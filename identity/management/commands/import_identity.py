"""Import the links of a FileIdentityResolver's file."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from identity import resolvers
from identity.flows import linking
from identity.links import locks, lookup


class Command(BaseCommand):
    help = 'Create the links in an identity file, {"links": {"telegram::12345": "alice"}}: all of them or none.'

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="for example ~/.praisonai/identity.json")
        parser.add_argument("--dry-run", action="store_true", help="only print what would change")

    def handle(self, *, file: Path, dry_run: bool, **options: Any) -> None:
        links = _read(file)
        with transaction.atomic():
            # Every row that is needed, each kind in one order: a running bot, or a second import, only waits.
            accounts = [lookup.account_for(platform=pair[0], platform_user_id=pair[1]) for pair in sorted(links)]
            people = [lookup.person_for(unified_user_id=person) for person in sorted(set(links.values()))]
            locks.lock_people([account.pk for account in accounts], joining=[user.pk for user in people])
            done = Counter(_make(*pair, person) for pair, person in links.items())
            transaction.set_rollback(dry_run)
        would = "Would be: " if dry_run else ""
        self.stdout.write(f"{would}{done['linked']} linked, {done['unchanged']} unchanged, {done['moved']} moved.")


def _read(file: Path) -> resolvers.Links:
    try:
        links = resolvers.parse(file.expanduser().read_bytes())[1]
        for pair, person in links.items():
            try:
                lookup.check_account(*pair)
                lookup.check_person(person)
            except ValueError as error:
                raise ValueError(f"links[{resolvers.SEPARATOR.join(pair)!r}]: {error}") from error
    except (OSError, ValueError) as error:
        raise CommandError(f"{file}: {error}") from error
    return links


def _make(platform: str, platform_user_id: str, person: str) -> str:
    """Make one link, and return the count that it belongs to: unchanged, linked or moved."""
    before = resolvers.DatabaseIdentityResolver().resolve(platform, platform_user_id)
    if before == person:
        return "unchanged"
    linking.link(
        platform=platform,
        platform_user_id=platform_user_id,
        unified_user_id=person,
        method="import",
        actor="import_identity",
    )
    return "linked" if before == resolvers.stranger_key(platform, platform_user_id) else "moved"
