"""How often an account or a browser may start a handshake, try a wrong code, and be denied by others.

Reaching a limit affects no one else. A new code resets nothing.
"""

from __future__ import annotations

import logging
import math
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from identity import audit
from identity.models import Browser, GuessLimit, Pairing, PlatformAccount
from identity.pairing.settings import DAY, limits
from identity.support import client_address, clock

log = logging.getLogger(__name__)

# --- Starts


def seconds_until_start(party: PlatformAccount | Browser) -> int:
    """Return how many seconds the party must wait before its next start. Reads at most a day's starts.

    A browser that has just attached one account needs no pause before the next.
    """
    these = limits()
    pause, allowed = [(these.start_pause_seconds, 1)], [(3600, these.starts_an_hour), (DAY, these.starts_a_day)]
    if isinstance(party, Browser):
        starts = Pairing.objects.filter(initiator_browser=party)
        unfinished = starts.exclude(state=Pairing.State.ATTACHED)
        return max(_seconds_to_wait(unfinished, pause), _seconds_to_wait(starts, allowed))
    if rejections(party) >= these.strikes:
        allowed.append((3600, 1))
    return _seconds_to_wait(_begun_by(party), pause + allowed)


def _begun_by(account: PlatformAccount) -> QuerySet[Pairing]:
    """The requests that it has begun, by its hash: an account that was forgotten and comes back has another row."""
    return Pairing.objects.filter(initiator_hash__in=audit.account_hashes(account))


def seconds_until_start_from(address: str) -> int:
    """Return the same for all browsers at one address: anyone can have as many browsers as they like."""
    starts = Pairing.objects.filter(initiator_browser__address=address)
    return _seconds_to_wait(starts, [(3600, limits().address_starts_an_hour)])


def seconds_until_browser_from(address: str) -> int:
    """Return how many seconds until one more browser may begin at the address."""
    return _seconds_to_wait(Browser.objects.filter(address=address), [(3600, limits().address_starts_an_hour)])


def _seconds_to_wait(starts: QuerySet[Pairing] | QuerySet[Browser], allowed: list[tuple[int, int]]) -> int:
    """`allowed`: pairs of a span in seconds and how many starts there may be in it."""
    now = clock.read()
    newest = starts.order_by("-created_at").values_list("created_at", flat=True)
    times = list(newest[: max(count for _, count in allowed)])
    waits = [times[count - 1] + timedelta(seconds=span) - now for span, count in allowed if len(times) >= count]
    return max(0, *(math.ceil(wait.total_seconds()) for wait in waits)) if waits else 0


def rejections(account: PlatformAccount) -> int:
    """Return how many others denied a link with the account within a day. Only requests that it started count.

    Otherwise anyone could slow it down by giving it a code.
    """
    return _against(account).values("responder").distinct().count()


def _against(account: PlatformAccount) -> QuerySet[Pairing]:
    lately = clock.seconds_from_now(-DAY)
    return _begun_by(account).filter(strike=F("initiator"), ended_at__gt=lately)


def alert(pairing: Pairing) -> None:
    """Tell the operator once, in both logs, if this request brings its initiator to the limit of rejections."""
    account = pairing.strike
    if account is None or account.pk != pairing.initiator_id:
        return
    before = _against(account).exclude(pk=pairing.pk).values("responder").distinct().count()
    if before < limits().strikes <= rejections(account):
        audit.record(kind="pairing_strikes", actor="system", account=account)
        words = "%s tried to link against the will of %d others within a day: it may start once an hour now"
        log.warning(words, audit.actor(account), rejections(account))


# --- Wrong codes


def attempt_key_at(address: str) -> str:
    """Return the key under which wrong codes of browsers at an address (its keyed hash) are counted."""
    return f"address {address}"


def attempts_of(key: str, *older: str) -> GuessLimit:
    """Lock and return the count of wrong codes under a key, so that attempts are counted one after the other.

    Counts under `older` keys, those of earlier SECRET_KEYs, move into it: a new SECRET_KEY ends no lock.
    """
    # In one order, also where two processes have the keys in two.
    rows = GuessLimit.objects.filter(guesser__in=[key, *older]).order_by("guesser")
    held = list(rows.select_for_update()) if older else []
    limit = GuessLimit.objects.select_for_update().get_or_create(guesser=key)[0]
    earlier = [row for row in held if row.guesser != key]
    for row in earlier:
        limit.times = sorted([*limit.times, *row.times])[-limits().guesses :]
        limit.last_at, limit.locked_until = max(limit.last_at, row.last_at), max(limit.locked_until, row.locked_until)
    if earlier:
        limit.save()
        GuessLimit.objects.filter(guesser__in=[row.guesser for row in earlier]).delete()
    return limit


def attempts_by(account: PlatformAccount) -> GuessLimit:
    """Lock and return the count of an account, by its hash: an account that was forgotten comes back with its count."""
    return attempts_of(*audit.actors(account))


def address_of(meta: dict[str, Any]) -> str:
    """Return the keyed hash of a request's address. Moves the counts under hashes by earlier keys to it."""
    address, *older = client_address.hashes_of(meta)
    if older:
        with transaction.atomic():
            attempts_of(attempt_key_at(address), *map(attempt_key_at, older))
        with transaction.atomic():
            browsers = Browser.objects.filter(address__in=older).order_by("pk")
            held = list(browsers.select_for_update(no_key=True).values_list("pk", flat=True))
            Browser.objects.filter(pk__in=held).update(address=address)
    return address


def count_wrong(limit: GuessLimit, now: datetime, *, actor: str, account: PlatformAccount | None = None) -> None:
    """Count one more wrong code. Too many within any span of `guess_seconds` lock this account or address out."""
    these, moment = limits(), now.timestamp()
    recent = [at for at in limit.times if at > moment - these.guess_seconds]
    limit.times, limit.last_at = [*recent, moment][-these.guesses :], now
    audit.record(kind="pairing_code_wrong", actor=actor, account=account)
    if len(limit.times) >= these.guesses:
        was_locked = limit.locked_until > now - timedelta(seconds=DAY)
        locked = these.lock_again_seconds if was_locked else these.lock_seconds
        until_one_is_old = math.ceil(limit.times[0] + these.guess_seconds - moment)
        limit.locked_until = now + timedelta(seconds=max(locked, until_one_is_old))
        audit.record(kind="pairing_guesser_locked", actor=actor, account=account, seconds=locked)
    limit.save()


def forget_old() -> int:
    """Delete counts that are too old to matter. Returns how many."""
    long_ago = clock.seconds_from_now(-2 * DAY)
    return GuessLimit.objects.filter(last_at__lte=long_ago, locked_until__lte=long_ago).delete()[0]
