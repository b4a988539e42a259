"""`manage.py tell alice "The bot is down tonight."`: an operator speaks to a person, in the chat that they prefer."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from identity import labels
from identity.management.printing import operator, person_named
from sessions_app.outbox import notify


class Command(BaseCommand):
    help = "Send a message to a person. Their agent sees it too."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("person_id", metavar="id", help="the unified id, for example alice")
        parser.add_argument("text", help="the message; - reads it from standard input")

    def handle(self, *, person_id: str, text: str, **_: Any) -> None:
        words = sys.stdin.read() if text == "-" else text
        try:
            chat = notify.tell(person=person_named(person_id), text=words, label="operator", actor=operator())
        except ValueError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"The message is queued for {labels.title(chat.platform)}.")
