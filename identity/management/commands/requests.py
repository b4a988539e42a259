"""`manage.py requests`: list and show pairing requests, and finish or withdraw invitations. It shows no code."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q

from identity import operators, wording
from identity.flows import invitations
from identity.management.printing import OperatorCommand, operator
from identity.models import Pairing
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.support import clock


class Command(OperatorCommand):
    help = "Pairing requests: list, show, withdraw, confirm."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        requests = self.list_step(self.list, "List requests.")
        requests.add_argument("--live", action="store_true", help="only live requests")
        id_help = "the ID that list shows"
        self.step("show", self.show_request, "Show one request.").add_argument(
            "pk", metavar="id", type=UUID, help=id_help
        )
        self.step("withdraw", self.withdraw, "End an invitation.").add_argument(
            "pk", metavar="id", type=UUID, help=id_help
        )
        text = "Type the number that the person read out. The command asks for it, so it isn't in your shell history."
        self.step("confirm", self.confirm, text).add_argument("pk", metavar="id", type=UUID, help=id_help)

    def list(self, *, search: str, limit: int, live: bool) -> None:
        requests = pairing_requests.with_parties(Pairing.objects.all()).order_by("-created_at")
        if search:
            ids = Q(initiator__platform_user_id=search) | Q(responder__platform_user_id=search)
            person = Q(person__unified_user_id__icontains=search)
            requests = requests.filter(ids | person | Q(operator__icontains=search))
        if live:
            requests = requests.filter(ended_at=None, expires_at__gt=clock.now())
        now = clock.read()
        self.show_all([_row(request, now) for request in requests[:limit]])

    def show_request(self, *, pk: UUID) -> None:
        pairing = _request(pk)
        text = {"status": invitations.status_of(pairing).text} if pairing.person else {}
        self.show(_row(pairing) | {"platform": pairing.platform, "tries": pairing.tries} | text)

    def withdraw(self, *, pk: UUID) -> None:
        if not operators.withdraw(invitation=_request(pk), operator=operator()):
            raise ValueError("This is not an invitation, or it has ended.")
        self.show(_row(_request(pk)), "Withdrawn: its code no longer works.")

    def confirm(self, *, pk: UUID) -> None:
        pairing = _request(pk)
        if pairing.person is None:
            raise ValueError("Only the person can complete a request that they started in a chat.")
        self.stderr.write("Number: ", ending="")
        self.stderr.flush()
        outcome = operators.confirm(invitation=pairing, number=sys.stdin.readline(), operator=operator())
        if outcome != Outcome.LINKED:
            raise ValueError(_refusal(outcome, pairing))
        self.show(_row(_request(pk)), f"Linked. {invitations.status_of(_request(pk)).text}")


def _refusal(outcome: Outcome, pairing: Pairing) -> str:
    texts = {
        Outcome.WRONG: wording.wrong_number(operators.tries_left(pairing)),
        Outcome.LOCKED: "Too many wrong numbers. Nothing was linked.",
        Outcome.REFUSED: "Nothing was linked: the account or the person was linked elsewhere in the meantime.",
        Outcome.OTHER_SIDE: "The person has an account, so they must type the number in one of their own chats.",
    }
    return texts.get(outcome, "There is no number to type: the request has ended, or is still waiting for its code.")


def _request(pk: UUID) -> Pairing:
    request = pairing_requests.with_parties(Pairing.objects.filter(pk=pk)).first()
    if request is None:
        raise ValueError(f"There is no request {pk}.")
    return request


def _row(pairing: Pairing, now: datetime | None = None) -> dict[str, Any]:
    return {
        "id": pairing.pk,
        "state": str(invitations.state_of(pairing, now)),
        "started_by": invitations.initiator_of(pairing),
        "person": pairing.person.unified_user_id if pairing.person else None,
        "answered_by": invitations.responder_of(pairing) or None,
        "created_at": pairing.created_at,
        "expires_at": pairing.expires_at,
        "ended_at": pairing.ended_at,
    }
