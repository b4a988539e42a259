"""How often somebody may start a handshake, guess a code, and work against others' will, before it slows down.

Whoever reaches a limit stops nobody else. A new code resets nothing.
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
    """How long the party must wait before it may start again; 0 for not at all. Reads at most a day's starts.

    A browser that has just attached one account goes on to the next without a pause.
    """
    these = limits()
    pause, most = [(these.start_pause_seconds, 1)], [(3600, these.starts_an_hour), (DAY, these.starts_a_day)]
    if isinstance(party, Browser):
        starts = Pairing.objects.filter(initiator_browser=party)
        in_vain = starts.exclude(state=Pairing.State.ATTACHED)
        return max(_seconds_to_wait(in_vain, pause), _seconds_to_wait(starts, most))
    if strikes(party) >= these.strikes:
        most.append((3600, 1))
    return _seconds_to_wait(_begun_by(party), pause + most)


def _begun_by(account: PlatformAccount) -> QuerySet[Pairing]:
    """What it has begun, beyond its row: whoever is forgotten and comes back has started already."""
    return Pairing.objects.filter(initiator_hash__in=audit.account_hashes(account))


def seconds_until_start_from(address: str) -> int:
    """The same for all browsers that come from one address: anybody has as many browsers as they like."""
    theirs = Pairing.objects.filter(initiator_browser__address=address)
    return _seconds_to_wait(theirs, [(3600, limits().address_starts_an_hour)])


def seconds_until_browser_from(address: str) -> int:
    """How long until one more browser may be begun from the address."""
    return _seconds_to_wait(Browser.objects.filter(address=address), [(3600, limits().address_starts_an_hour)])


def _seconds_to_wait(starts: QuerySet[Pairing] | QuerySet[Browser], most: list[tuple[int, int]]) -> int:
    """`most`: within so many seconds, how many of them there may be."""
    now = clock.read()
    newest = starts.order_by("-created_at").values_list("created_at", flat=True)
    times = list(newest[: max(count for _, count in most)])
    waits = [times[count - 1] + timedelta(seconds=span) - now for span, count in most if len(times) >= count]
    return max(0, *(math.ceil(wait.total_seconds()) for wait in waits)) if waits else 0


def strikes(account: PlatformAccount) -> int:
    """Against how many others' will the account tried to link within a day. Only what it started counts: else anybody
    who hands it a code could slow it down.
    """
    return _against(account).values("responder").distinct().count()


def _against(account: PlatformAccount) -> QuerySet[Pairing]:
    lately = clock.seconds_from_now(-DAY)
    return _begun_by(account).filter(strike=F("initiator"), ended_at__gt=lately)


def alert(pairing: Pairing) -> None:
    """Tell the operator once, in both logs, that by this request its initiator has the strikes that slow it down."""
    struck = pairing.strike
    if struck is None or struck.pk != pairing.initiator_id:
        return
    before = _against(struck).exclude(pk=pairing.pk).values("responder").distinct().count()
    if before < limits().strikes <= strikes(struck):
        audit.record(kind="pairing_strikes", actor="system", account=struck)
        words = "%s tried to link against the will of %d others within a day: it may start once an hour now"
        log.warning(words, audit.actor(struck), strikes(struck))


# --- Wrong codes


def guesser_at(address: str) -> str:
    """Whoever guesses in browsers at an address, given as its keyed hash."""
    return f"address {address}"


def guesses_of(guesser: str, *older: str) -> GuessLimit:
    """The guesser's count of wrong codes, held until commit, so that guesses are counted one after the other.

    What was counted under `older` names, those of earlier keys, moves into it: a new SECRET_KEY frees nobody.
    """
    # In one order, also where two processes have the keys in two.
    named = GuessLimit.objects.filter(guesser__in=[guesser, *older]).order_by("guesser")
    held = list(named.select_for_update()) if older else []
    limit = GuessLimit.objects.select_for_update().get_or_create(guesser=guesser)[0]
    earlier = [one for one in held if one.guesser != guesser]
    for one in earlier:
        limit.times = sorted([*limit.times, *one.times])[-limits().guesses :]
        limit.last_at, limit.locked_until = max(limit.last_at, one.last_at), max(limit.locked_until, one.locked_until)
    if earlier:
        limit.save()
        GuessLimit.objects.filter(guesser__in=[one.guesser for one in earlier]).delete()
    return limit


def guesses_by(account: PlatformAccount) -> GuessLimit:
    """The count of an account beyond its row: somebody who is forgotten and comes back has guessed already."""
    return guesses_of(*audit.actors(account))


def address_of(meta: dict[str, Any]) -> str:
    """The keyed hash of where a request comes from. What was counted there under earlier keys counts on under it."""
    address, *older = client_address.hashes_of(meta)
    if older:
        with transaction.atomic():
            guesses_of(guesser_at(address), *map(guesser_at, older))
        with transaction.atomic():
            theirs = Browser.objects.filter(address__in=older).order_by("pk")
            held = list(theirs.select_for_update(no_key=True).values_list("pk", flat=True))
            Browser.objects.filter(pk__in=held).update(address=address)
    return address


def count_wrong(limit: GuessLimit, now: datetime, *, actor: str, account: PlatformAccount | None = None) -> None:
    """One more wrong code. Too many within any span of the window's length lock the guesser, and nobody else."""
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
    """Drop the counts that mean nothing any more. How many there were."""
    long_ago = clock.seconds_from_now(-2 * DAY)
    return GuessLimit.objects.filter(last_at__lte=long_ago, locked_until__lte=long_ago).delete()[0]
