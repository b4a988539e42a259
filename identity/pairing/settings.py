"""The limits of pairing, with their defaults. `BOTOS_PAIRING="code_seconds=300 guesses=3"` changes some of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from django.conf import settings

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of pairing. Times are in seconds."""

    code_seconds: int = 600  # life of a link code
    number_seconds: int = 300  # life of the number that answers it
    handshake_seconds: int = 900  # both together at most
    number_tries: int = 3
    invitation_seconds: int = 3 * DAY  # life of an operator's code
    invitation_number_seconds: int = DAY
    guesses: int = 5  # wrong codes within guess_seconds that lock an account or address out
    guess_seconds: int = 900
    lock_seconds: int = 900  # the first time,
    lock_again_seconds: int = 3600  # and again within a day
    start_pause_seconds: int = 30  # between two starts of one account; 0 for no pause
    starts_an_hour: int = 5
    starts_a_day: int = 20
    strikes: int = 3  # within a day, then the operator is alerted and one start an hour is left
    new_link_seconds: int = DAY  # so long a link cannot take out older accounts
    # How long after its end a link may still be disowned; by its own account, how long after its beginning.
    disown_seconds: int = 7 * DAY
    first_reminder_seconds: int = DAY
    second_reminder_seconds: int = 7 * DAY
    silence_seconds: int = 180 * DAY  # then an account's link ends: it may belong to someone else by now
    browser_idle_seconds: int = 1800  # without use, until a browser ends
    browser_seconds: int = 8 * 3600  # until a browser ends in any case
    fresh_seconds: int = 900  # how long after its confirmation an attached chat is shown
    together_seconds: int = 900  # how long after both were attached a browser may link two accounts
    address_starts_an_hour: int = 60  # of all browsers at one address
    message_seconds: int = 600  # how old a message may be to count as typed here and now


def limits() -> Limits:
    """Return the limits in force. Raises ValueError for unknown names and invalid values."""
    given = settings.BOTOS_PAIRING
    if unknown := set(given) - {field.name for field in fields(Limits)}:
        raise ValueError(f"there is no limit {min(unknown)!r}")
    for name, value in sorted(given.items()):
        least = 0 if name == "start_pause_seconds" else 1
        if not str(value).isdecimal() or int(value) < least:
            raise ValueError(f"{name} must be a whole number from {least}")
    return Limits(**{name: int(value) for name, value in given.items()})
