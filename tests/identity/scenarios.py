"""Scenarios: each goes where one rule decides, in the real code and in the model, and checks every invariant after each
step. What random runs find once in an hour is found here each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.identity.handshakes import Handshakes
from tests.identity.pairing_model import Account

TELEGRAM, DISCORD, SLACK = (Account("alice", platform) for platform in ("telegram", "discord", "slack"))
BOB, BOB_DISCORD, BOB_SLACK = (Account("bob", platform) for platform in ("telegram", "discord", "slack"))
MALLORY = Account("mallory", "slack")
NEWEST, NONE = 0, 5
WORDS = "{}"

Step = tuple[Any, ...]  # the name of a rule of the machine, and what it is given

ASKED: list[Step] = [("ask_for_a_code", TELEGRAM)]
CLAIMED: list[Step] = [*ASKED, ("send_a_code", DISCORD, NEWEST, WORDS)]
PAIRED: list[Step] = [("pair_two_own_accounts", TELEGRAM, "discord")]
ALL_PAIRED: list[Step] = [*PAIRED, ("wait", 301), ("pair_two_own_accounts", TELEGRAM, "slack")]
RIGHT: Step = ("type_a_number", TELEGRAM, NEWEST, True)
WRONG: Step = ("type_a_number", TELEGRAM, NEWEST, False)
BOGUS: Step = ("send_a_code", MALLORY, NONE, WORDS)
STOLEN: Step = ("send_a_code", MALLORY, NEWEST, WORDS)


def said(*who: Account) -> list[Step]:
    return [("say_something", one, "") for one in who]


SCENARIOS: dict[str, list[Step]] = {
    "three wrong numbers": [*CLAIMED, WRONG, WRONG, WRONG, RIGHT],
    "two wrong numbers and the right one": [*CLAIMED, WRONG, WRONG, RIGHT],
    "the number on the wrong side": [*CLAIMED, ("type_a_number", DISCORD, NEWEST, True), RIGHT],
    "the number in a third app": [*CLAIMED, ("type_a_number", SLACK, NEWEST, True)],
    "a stolen code": [*ASKED, STOLEN, WRONG, ("type_a_number", MALLORY, NEWEST, True)],
    "a code twice": [*CLAIMED, STOLEN, ("send_a_code", MALLORY, NEWEST, "token"), RIGHT],
    "a late code": [*ASKED, ("wait", 601), ("send_a_code", DISCORD, NEWEST, WORDS)],
    "a late number": [*CLAIMED, ("wait", 301), RIGHT],
    "a number after the end": [*CLAIMED, ("cancel", DISCORD), RIGHT],
    "a code in a sentence": [*ASKED, ("send_a_code", DISCORD, NEWEST, "it is {}"), RIGHT],
    "letters of a code": [*ASKED, ("write_letters_like_a_code", DISCORD, NEWEST, "it is {}"), RIGHT],
    "a wrong code beside one's own": [
        *ASKED,
        *[("write_a_wrong_code_beside_one", TELEGRAM, NEWEST)] * 4,
        ("write_letters_like_a_code", TELEGRAM, NONE, "it is {}"),
        ("write_letters_like_a_code", TELEGRAM, NONE, "it is {}"),
        ("write_letters_like_a_code", TELEGRAM, NONE, "it is {}"),
    ],
    "letters like a code": [*ASKED, *[("write_letters_like_a_code", MALLORY, NONE, "it is {}")] * 5, STOLEN],
    "the number in another app of the responder's": [
        *PAIRED,
        ("ask_for_a_code", SLACK),
        ("send_a_code", TELEGRAM, NEWEST, WORDS),
        ("type_a_number", DISCORD, NEWEST, True),
        ("type_a_number", SLACK, NEWEST, True),
    ],
    "a wrong code in a sentence": [("send_a_code", MALLORY, NONE, "it is {}")],
    "the own code": [*ASKED, ("send_a_code", TELEGRAM, NEWEST, WORDS)],
    "the same app": [*ASKED, ("send_a_code", BOB, NEWEST, WORDS)],
    "two people": [
        *PAIRED,
        ("unlink", DISCORD, ""),
        ("pair_two_own_accounts", BOB_DISCORD, "slack"),
        ("wait", 31),
        *ASKED,
        ("send_a_code", BOB_DISCORD, NEWEST, WORDS),
    ],
    "linked in the meantime": [
        *CLAIMED,
        ("ask_for_a_code", DISCORD),
        ("send_a_code", TELEGRAM, NEWEST, WORDS),
        ("type_a_number", DISCORD, NEWEST, True),
        ("type_a_number", TELEGRAM, 1, True),
    ],
    "joined by a third in the meantime": [
        *CLAIMED,
        ("ask_for_a_code", SLACK),
        ("send_a_code", TELEGRAM, NEWEST, WORDS),
        ("type_a_number", SLACK, NEWEST, True),
        ("type_a_number", TELEGRAM, 1, True),
    ],
    "joined by a third on the other side in the meantime": [
        *CLAIMED,
        ("wait", 31),
        ("ask_for_a_code", DISCORD),
        ("send_a_code", SLACK, NEWEST, WORDS),
        ("type_a_number", DISCORD, NEWEST, True),
        ("type_a_number", TELEGRAM, 1, True),
    ],
    "guesses": [*ASKED, *[BOGUS] * 5, STOLEN],
    "guesses, and a lock again": [*[BOGUS] * 5, ("wait", 901), *[BOGUS] * 5, ("wait", 901), BOGUS],
    "guesses over half an hour": [BOGUS, ("wait", 601), *[BOGUS] * 3, ("wait", 301), *[BOGUS] * 3],
    "guesses with a new code between": [*[BOGUS] * 3, ("ask_for_a_code", MALLORY), *[BOGUS] * 3],
    "starts": [*ASKED, *ASKED, ("wait", 31), *ASKED],
    "an earlier code": [*ASKED, ("wait", 31), *ASKED, ("send_a_code", DISCORD, 1, WORDS)],
    "an earlier claim": [*CLAIMED, ("ask_for_a_code", MALLORY), ("send_a_code", DISCORD, NEWEST, WORDS)],
    "not me": [*CLAIMED, ("say_not_me", MALLORY, NEWEST), ("say_not_me", DISCORD, NEWEST), RIGHT],
    "not me, from the first side": [*CLAIMED, ("say_not_me", TELEGRAM, NEWEST)],
    "not me, too late": [
        *said(TELEGRAM, DISCORD),
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("say_not_me", MALLORY, NEWEST),
        ("say_not_me", DISCORD, NEWEST),
        *said(TELEGRAM, DISCORD),
        ("say_not_me", TELEGRAM, NEWEST),
    ],
    "not me, very late": [
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("wait", 7 * 86_400 + 13),
        ("say_not_me", DISCORD, NEWEST),
        *said(TELEGRAM, DISCORD),
    ],
    "not me, too late, from one of three": [*ALL_PAIRED, ("say_not_me", SLACK, 1), ("say_not_me", DISCORD, NEWEST)],
    "somebody else cancels": [*CLAIMED, ("cancel", MALLORY), ("cancel", TELEGRAM)],
    "a code in a group": [
        *ASKED,
        ("post_a_code_in_a_group", DISCORD, NEWEST),
        ("send_a_code", DISCORD, NEWEST, WORDS),
    ],
    "a dead code in a group": [("post_a_code_in_a_group", DISCORD, NONE)],
    "a new link ends older ones": [
        *ALL_PAIRED,
        ("say_that_it_was_somebody_else", SLACK),
        ("unlink", SLACK, "telegram"),
        ("undo", SLACK, 1),
        ("wait", 86_413),
        ("unlink", SLACK, "telegram"),
    ],
    "an older link ends newer ones": [*ALL_PAIRED, ("unlink", DISCORD, "slack"), ("undo", DISCORD, 1)],
    "undo": [*ALL_PAIRED, ("undo", MALLORY, NEWEST), ("undo", TELEGRAM, NEWEST)],
    "windows": [*said(TELEGRAM, DISCORD), *PAIRED, *said(TELEGRAM, DISCORD), ("unlink", DISCORD, ""), *said(DISCORD)],
    "windows of three": [*PAIRED, *said(TELEGRAM, SLACK), *ALL_PAIRED[1:], *said(SLACK, DISCORD)],
    "sharing": [*said(TELEGRAM, DISCORD), *PAIRED, ("share_the_past", TELEGRAM), ("share_the_past", TELEGRAM)],
    "disowning": [
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("say_that_it_was_somebody_else", TELEGRAM),
        *said(TELEGRAM, DISCORD),
    ],
    "disowning what has ended": [
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("unlink", DISCORD, ""),
        ("say_that_it_was_somebody_else", TELEGRAM),
        *said(TELEGRAM, DISCORD),
        ("say_that_it_was_somebody_else", TELEGRAM),
    ],
    "disowning after one was taken out": [
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("unlink", DISCORD, "telegram"),
        ("say_that_it_was_somebody_else", TELEGRAM),
    ],
    "disowning after one was taken out that was linked for long": [
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("wait", 7 * 86_400 + 13),
        ("unlink", DISCORD, "telegram"),
        ("say_that_it_was_somebody_else", TELEGRAM),
    ],
    "a newcomer disowns what is old": [
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("wait", 7 * 86_400 + 13),
        *ALL_PAIRED[len(PAIRED) :],
        ("wait", 86_413),
        ("say_that_it_was_somebody_else", SLACK),
    ],
    "a newcomer disowns what was old and has ended": [
        *PAIRED,
        *said(TELEGRAM, DISCORD),
        ("wait", 7 * 86_400 + 13),
        *ALL_PAIRED[len(PAIRED) :],
        ("wait", 86_413),
        ("unlink", DISCORD, ""),
        ("say_that_it_was_somebody_else", SLACK),
    ],
    "linked again": [*said(DISCORD), *PAIRED, *said(TELEGRAM), ("unlink", TELEGRAM, ""), *said(TELEGRAM), *PAIRED],
    "a new conversation": [*PAIRED, *said(TELEGRAM), ("reset_context", DISCORD), *said(DISCORD)],
    "a new conversation of one that was linked with it": [*said(TELEGRAM), *PAIRED, ("reset_context", DISCORD)],
    "a new conversation of a new link": [
        *said(TELEGRAM),
        *ALL_PAIRED,
        *said(TELEGRAM, DISCORD),
        ("reset_context", SLACK),
        *said(TELEGRAM),
        ("wait", 86_413),
        ("reset_context", SLACK),
    ],
    "a new conversation of an older link": [*ALL_PAIRED, *said(SLACK), ("reset_context", TELEGRAM)],
    "groups apart": [*PAIRED, ("say_something", TELEGRAM, "friends"), *said(TELEGRAM, DISCORD)],
}


_checked: set[tuple[Step, ...]] = set()  # beginnings after which all invariants held


def run(machine: Handshakes, steps: list[Step]) -> None:
    """Do the steps, with all invariants after each. What several drills begin with is checked in the first."""
    for place, (name, *given) in enumerate(steps):
        do: Callable[..., None] = getattr(machine, name)
        do(*given)
        if (beginning := tuple(steps[: place + 1])) not in _checked:
            machine.check_all()
            _checked.add(beginning)
    machine.secrets_are_not_kept()
