"""Due rows, a portion at a time. A row that fails rests for a while, and the rows behind it go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from django.db import models, transaction
from django.db.models import QuerySet

from identity.support.db_errors import is_away

log = logging.getLogger(__name__)
M = TypeVar("M", bound=models.Model)

AT_ONCE = 500
REST_SECONDS = 900.0
_resting: dict[str, dict[Any, float]] = {}  # by what failed: primary key to the end of its rest, monotonic


def awake(what: str, rows: QuerySet[M]) -> QuerySet[M]:
    """Return the rows without those that failed lately in this process."""
    now = monotonic()
    _resting[what] = {pk: until for pk, until in _resting.get(what, {}).items() if until > now}
    return rows.exclude(pk__in=list(_resting[what]))


def handle(what: str, rows: QuerySet[M], step: Callable[[M], bool], *, most: int = AT_ONCE) -> int:
    """Call `step` for up to `most` rows, each in a transaction of its own. Returns how many calls returned True.

    Raises only if the database itself is out of reach.
    """
    while True:
        portion = list(awake(what, rows)[:most])
        done = sum(attempt(what, row.pk, transaction.atomic(step), row) for row in portion)
        if done or len(portion) < most or not _resting[what]:
            return done


def attempt(what: str, pk: Any, step: Callable[..., bool], *arguments: Any) -> bool:
    """Return what `step` returns, or False if it fails; then the row with this primary key rests."""
    try:
        return step(*arguments)
    except Exception as error:
        if is_away(error):
            raise
        _resting.setdefault(what, {})[pk] = monotonic() + REST_SECONDS
        words = "%s failed: row %s: %s; the other rows go on, this one is tried again in %.0f s"
        log.error(words, what, pk, type(error).__name__, REST_SECONDS)
        log.debug("%s: row %s", what, pk, exc_info=True)
        return False


def delete(what: str, rows: QuerySet[Any], *, most: int = AT_ONCE) -> int:
    """Delete up to `most` rows, in one statement if that works. Returns how many."""
    pks = list(awake(what, rows).values_list("pk", flat=True)[:most])
    try:
        with transaction.atomic():
            return int(rows.order_by().filter(pk__in=pks).delete()[0]) if pks else 0
    except Exception as error:
        if is_away(error):
            raise
    return sum(attempt(what, pk, lambda row_pk: bool(rows.order_by().filter(pk=row_pk).delete()[0]), pk) for pk in pks)
