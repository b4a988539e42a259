"""The check of a number that is typed back, for requests to link and requests to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db.models import F, QuerySet

from identity.pairing import codes
from identity.pairing.settings import limits


class Verdict(StrEnum):
    """What a typed number is."""

    RIGHT = "right"
    WRONG = "wrong"
    LOCKED = "locked"  # wrong, and the last try
    ENDED = "ended"  # not compared: the request has ended or has no try left


@dataclass(frozen=True, slots=True)
class Check:
    """A verdict and, with WRONG, how many tries are `left`."""

    verdict: Verdict
    left: int = 0


def matches(typed: str, number: str, *, tries: int) -> bool:
    """Whether `typed` is the number of a request with so many `tries` counted, if it has one left. Counts nothing."""
    return tries < limits().number_tries and codes.is_same(typed, number)


def check(typed: str, number: str, *, pending: QuerySet[Any], tries: int) -> Check:
    """Count a try, then compare `typed` with the number of a request.

    `pending` selects the request's row, as long as it waits for a number; `tries` is how many were counted when the row
    was read. The caller holds the row, or what must be held before it.
    """
    allowed = limits().number_tries
    if not pending.filter(tries__lt=allowed).update(tries=F("tries") + 1):  # first, so that no try is uncounted
        return Check(Verdict.ENDED)
    if codes.is_same(typed, number):
        return Check(Verdict.RIGHT)
    left = allowed - tries - 1
    return Check(Verdict.WRONG, left) if left > 0 else Check(Verdict.LOCKED)
