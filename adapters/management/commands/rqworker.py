"""Takes the place of django_rq's command of this name where there is no Redis, and django_rq is therefore left out."""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Answer the messages that runbots --workers 0 receives. Needs REDIS_URL."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        raise ImproperlyConfigured(
            "rqworker needs Redis. Hint: set REDIS_URL, as in REDIS_URL=redis://127.0.0.1:6379/0."
        )
