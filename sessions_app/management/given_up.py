"""The common part of `manage.py deliveries` and `manage.py events`: `list`, `show`, `redrive`, `dismiss`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from django.db.models import Q

from identity.management.printing import OperatorCommand, Row, operator
from sessions_app.dead_letters import GivenUp


class GivenUpCommand(OperatorCommand):
    """A command about one kind of row, named by `singular` and `plural`. It shows no text of messages."""

    given_up: ClassVar[GivenUp]
    singular: ClassVar[str]  # "message"
    plural: ClassVar[str]  # "messages"
    taken_up: ClassVar[str]  # "will be answered"

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        listing = self.list_step(self.list, f"List failed {self.plural}.")
        listing.add_argument("--all", dest="everything", action="store_true", help="include the others")
        show = self.step("show", self.show_one, f"Show a {self.singular}, without its text.")
        show.add_argument("pk", metavar="id", type=int, help="the ID that list shows")
        again = self.step("redrive", self.redrive, f"Retry failed {self.plural}.")
        leave = self.step(
            "dismiss", self.dismiss, f"Dismiss failed {self.plural}: leave them as they are and stop counting them."
        )
        for some in (again, leave):
            some.add_argument("pks", metavar="id", type=int, nargs="*", help="the ID that list shows")
            some.add_argument("--all", dest="everything", action="store_true", help="all that list shows")

    def matching(self, search: str) -> Q:
        """The condition of `list --search`."""
        return Q(platform=search) | Q(chat_id=search)

    def row(self, item: Any) -> Row:
        """The listed fields of a row."""
        return {"id": item.pk, "status": item.status}

    def more(self, item: Any) -> Row:
        """The additional fields of `show`."""
        return {}

    def list(self, *, search: str, limit: int, everything: bool) -> None:
        wanted = self.given_up.every() if everything else self.given_up.unseen()
        if search:
            wanted = wanted.filter(self.matching(search))
        self.show_all([self.row(item) for item in wanted.order_by("-pk")[:limit]])

    def show_one(self, *, pk: int) -> None:
        item = self.given_up.every().filter(pk=pk).first()
        if item is None:
            raise ValueError(f"There is no {self.singular} {pk}.")
        self.show({**self.row(item), **self.more(item)})

    def redrive(self, *, pks: Sequence[int], everything: bool) -> None:
        done = self._each(self.given_up.take_up, pks, everything=everything)
        self.show({"redriven": done}, f"{done} {self.taken_up}.")

    def dismiss(self, *, pks: Sequence[int], everything: bool) -> None:
        done = self._each(self.given_up.dismiss, pks, everything=everything)
        self.show({"dismissed": done}, f"{done} dismissed.")

    def _each(self, does: Callable[..., bool], pks: Sequence[int], *, everything: bool) -> int:
        """Do it for each of the rows. Return how many were changed."""
        if bool(pks) is everything:
            raise ValueError(f"Name the {self.plural}, or use --all.")
        wanted = pks or tuple(self.given_up.unseen().values_list("pk", flat=True))
        done = sum(does(pk, operator=operator()) for pk in wanted)
        if pks and not done:
            raise ValueError(f"There is no failed {self.singular} with that ID.")
        return done
