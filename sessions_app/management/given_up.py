"""What the commands about what was given up have in common: `list`, `show`, `redrive`, `dismiss`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from django.db.models import Q

from identity.management.printing import OperatorCommand, Row, operator
from sessions_app.dead_letters import GivenUp


class GivenUpCommand(OperatorCommand):
    """One kind of thing, by its words. Nobody's messages are shown."""

    given_up: ClassVar[GivenUp]
    one: ClassVar[str]  # "message"
    several: ClassVar[str]  # "messages"
    taken_up: ClassVar[str]  # "will be answered"

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        listing = self.list_step(self.list, f"List failed {self.several}.")
        listing.add_argument("--all", dest="everything", action="store_true", help="include the others")
        show = self.step("show", self.show_one, f"Show a {self.one}, without its text.")
        show.add_argument("pk", metavar="id", type=int, help="the ID that list shows")
        again = self.step("redrive", self.redrive, f"Retry failed {self.several}.")
        leave = self.step(
            "dismiss", self.dismiss, f"Dismiss failed {self.several}: leave them as they are and stop counting them."
        )
        for some in (again, leave):
            some.add_argument("pks", metavar="id", type=int, nargs="*", help="the ID that list shows")
            some.add_argument("--all", dest="everything", action="store_true", help="all that list shows")

    def matching(self, search: str) -> Q:
        """Those that `list --search` wants."""
        return Q(platform=search) | Q(chat_id=search)

    def row(self, one: Any) -> Row:
        """What is listed of each."""
        return {"id": one.pk, "status": one.status}

    def more(self, one: Any) -> Row:
        """What `show` says besides."""
        return {}

    def list(self, *, search: str, limit: int, everything: bool) -> None:
        wanted = self.given_up.every() if everything else self.given_up.unseen()
        if search:
            wanted = wanted.filter(self.matching(search))
        self.show_all([self.row(one) for one in wanted.order_by("-pk")[:limit]])

    def show_one(self, *, pk: int) -> None:
        one = self.given_up.every().filter(pk=pk).first()
        if one is None:
            raise ValueError(f"There is no {self.one} {pk}.")
        self.show({**self.row(one), **self.more(one)})

    def redrive(self, *, pks: Sequence[int], everything: bool) -> None:
        done = self._each(self.given_up.take_up, pks, everything=everything)
        self.show({"redriven": done}, f"{done} {self.taken_up}.")

    def dismiss(self, *, pks: Sequence[int], everything: bool) -> None:
        done = self._each(self.given_up.dismiss, pks, everything=everything)
        self.show({"dismissed": done}, f"{done} dismissed.")

    def _each(self, does: Callable[..., bool], pks: Sequence[int], *, everything: bool) -> int:
        """For how many it was done."""
        if bool(pks) is everything:
            raise ValueError(f"Name the {self.several}, or use --all.")
        wanted = pks or tuple(self.given_up.unseen().values_list("pk", flat=True))
        done = sum(does(pk, operator=operator()) for pk in wanted)
        if pks and not done:
            raise ValueError(f"There is no failed {self.one} with that ID.")
        return done
