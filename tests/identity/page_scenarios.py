"""The scenarios in which browsers take part: see scenarios.py."""

from __future__ import annotations

from tests.identity.handshakes_on_pages import PAGES
from tests.identity.scenarios import (
    ASKED,
    BOB,
    CLAIMED,
    DISCORD,
    MALLORY,
    NEWEST,
    NONE,
    PAIRED,
    RIGHT,
    SLACK,
    TELEGRAM,
    WORDS,
    WRONG,
    Step,
)

LAPTOP, PHONE, BOBS, MALLORYS = PAGES

SHOWN: list[Step] = [("show_a_code", LAPTOP)]
SENT: list[Step] = [*SHOWN, ("send_a_code", TELEGRAM, NEWEST, WORDS)]
RIGHT_HERE: Step = ("type_on_a_page", LAPTOP, NEWEST, True)
WRONG_HERE: Step = ("type_on_a_page", LAPTOP, NEWEST, False)
ENTERED: list[Step] = [*ASKED, ("enter_a_code", LAPTOP, NEWEST)]
STOLEN_HERE: Step = ("enter_a_code", MALLORYS, NEWEST)
BOGUS_HERE: Step = ("enter_a_code", MALLORYS, NONE)
ATTACHED: list[Step] = [("attach_an_own_account", LAPTOP, "telegram")]
BOTH: list[Step] = [*ATTACHED, ("attach_an_own_account", LAPTOP, "discord")]
LINK: Step = ("link_these_two", LAPTOP, TELEGRAM, DISCORD)
LINKED: list[Step] = [*BOTH, LINK]
TWO_PAGES: list[Step] = [*BOTH, ("attach_an_own_account", PHONE, "telegram")]


PAGE_SCENARIOS: dict[str, list[Step]] = {
    "a page shows, a chat sends": [*SENT, RIGHT_HERE],
    "a page shows, a chat types": [*SENT, ("type_a_number", TELEGRAM, NEWEST, True), RIGHT_HERE],
    "another app types for a page": [
        *PAIRED,
        *SENT,
        ("type_a_number", DISCORD, NEWEST, True),
        ("type_a_number", DISCORD, NEWEST, False),
    ],
    "a chat asks, a page enters": [*ENTERED, RIGHT],
    "a chat asks, the page types": [*ENTERED, RIGHT_HERE, WRONG_HERE, RIGHT],
    "another page types": [
        *SENT,
        ("type_on_a_page", PHONE, NEWEST, True),
        *[("show_a_code", PHONE)],
        ("type_on_a_page", PHONE, 1, True),
        ("type_on_a_page", LAPTOP, 1, True),
    ],
    "not me, too late for a page": [
        *SENT,
        RIGHT_HERE,
        ("say_not_me", MALLORY, NEWEST),
        ("say_not_me", TELEGRAM, NEWEST),
    ],
    "not me, too late for two that a page linked": [*LINKED, ("say_not_me", DISCORD, NEWEST)],
    "not me, too late, from the one that came first": [*LINKED, ("say_not_me", TELEGRAM, 1)],
    "three wrong numbers on a page": [*SENT, WRONG_HERE, WRONG_HERE, WRONG_HERE, RIGHT_HERE],
    "three wrong numbers for a page": [*ENTERED, WRONG, WRONG, WRONG, RIGHT],
    "a stolen code of a page": [*SHOWN, ("send_a_code", MALLORY, NEWEST, WORDS), RIGHT_HERE, WRONG_HERE],
    "a stolen code on a page": [*ASKED, STOLEN_HERE, ("type_on_a_page", MALLORYS, NEWEST, True), RIGHT, WRONG],
    "a code of a page on a page": [*SHOWN, STOLEN_HERE, ("enter_a_code", LAPTOP, NEWEST), *SENT[1:]],
    "a code of a page twice": [*SENT, ("send_a_code", DISCORD, NEWEST, WORDS), STOLEN_HERE, RIGHT_HERE],
    "a late code of a page": [*SHOWN, ("wait", 601), *SENT[1:]],
    "a late code on a page": [*ASKED, ("wait", 601), ("enter_a_code", LAPTOP, NEWEST)],
    "a late number on a page": [*SENT, ("wait", 301), RIGHT_HERE],
    "a code of a page in a group": [*SHOWN, ("post_a_code_in_a_group", TELEGRAM, NEWEST), *SENT[1:]],
    "starts of a page": [*SHOWN, *SHOWN, ("wait", 31), *SHOWN, ("send_a_code", TELEGRAM, 1, WORDS)],
    "starts of a page within an hour": [*[*SHOWN, ("wait", 31)] * 6],
    "guesses on a page": [*ASKED, *[BOGUS_HERE] * 5, STOLEN_HERE],
    "guesses on a page that signs out between": [
        *ASKED,
        *[BOGUS_HERE] * 4,
        ("sign_out", MALLORYS),
        BOGUS_HERE,
        STOLEN_HERE,
        ("wait", 901),
        *[BOGUS_HERE] * 5,
        ("wait", 901),
        BOGUS_HERE,
    ],
    "guesses with a new code of the page between": [*[BOGUS_HERE] * 3, ("show_a_code", MALLORYS), *[BOGUS_HERE] * 3],
    "guesses elsewhere": [*[BOGUS_HERE] * 5, *ENTERED, RIGHT],
    "an earlier claim of a page": [
        *ENTERED,
        ("ask_for_a_code", DISCORD),
        ("enter_a_code", LAPTOP, NEWEST),
        ("type_a_number", TELEGRAM, 1, True),
    ],
    "a page begins and claims": [
        *SENT,
        ("ask_for_a_code", DISCORD),
        ("enter_a_code", LAPTOP, NEWEST),
        ("type_a_number", DISCORD, NEWEST, True),
        ("type_on_a_page", LAPTOP, 1, True),
    ],
    "not me, on the page that claimed": [*ENTERED, ("stop_on_a_page", LAPTOP, "denied"), RIGHT],
    "not me, on the page that began": [*SENT, ("stop_on_a_page", LAPTOP, "denied"), RIGHT_HERE],
    "not me, in the chat": [*SENT, ("say_not_me", TELEGRAM, NEWEST), RIGHT_HERE],
    "not me, in the chat that began": [*ENTERED, ("say_not_me", TELEGRAM, NEWEST), RIGHT],
    "not me, on another page": [
        *SENT,
        ("show_a_code", PHONE),
        ("stop_on_a_page", PHONE, "denied"),
        ("type_on_a_page", LAPTOP, 1, True),
    ],
    "three rejections on pages": [
        *[*ENTERED, ("stop_on_a_page", LAPTOP, "denied"), ("wait", 31)],
        *[*ASKED, ("enter_a_code", BOBS, NEWEST), ("stop_on_a_page", BOBS, "denied"), ("wait", 31)],
        *[*ASKED, STOLEN_HERE, ("stop_on_a_page", MALLORYS, "denied"), ("wait", 31)],
        *ASKED,
    ],
    "cancelled on a page": [
        *SENT,
        ("stop_on_a_page", MALLORYS, "cancelled"),
        ("stop_on_a_page", LAPTOP, "cancelled"),
        RIGHT_HERE,
    ],
    "cancelled in the chat": [*SENT, ("cancel", TELEGRAM), RIGHT_HERE],
    "attached again": [*ATTACHED, *ATTACHED, ("sign_in_with_an_own_account", LAPTOP, "telegram")],
    "attached where somebody is": [*BOTH, ("attach_an_own_account", MALLORYS, "slack")],
    "linked on a page": [*LINKED, ("wait", 31), LINK],
    "linked with what is in another browser": [
        *ATTACHED,
        ("attach_an_own_account", PHONE, "discord"),
        ("attach_an_own_account", MALLORYS, "slack"),
        LINK,
        ("link_these_two", MALLORYS, MALLORY, TELEGRAM),
        ("link_these_two", MALLORYS, MALLORY, DISCORD),
    ],
    "linked with what is in no browser": [("say_something", DISCORD, ""), *ATTACHED, LINK],
    "linked too late": [*ATTACHED, ("wait", 901), ("attach_an_own_account", LAPTOP, "discord"), LINK],
    "linked too late, though in use": [*BOTH, *[("wait", 601), ("use_a_page", LAPTOP)] * 2, LINK],
    "linked after one was taken out": [*LINKED, ("unlink", DISCORD, ""), LINK],
    "linked after signing out": [*BOTH, ("sign_out", LAPTOP), LINK],
    "linked on a page that has run out": [
        *ATTACHED,
        *[("wait", 901), ("use_a_page", LAPTOP)] * 31,
        ("wait", 601),
        *BOTH,
        *[("wait", 31)] * 7,
        LINK,
    ],
    "two of one app": [
        *ATTACHED,
        ("attach_an_own_account", BOBS, "telegram"),
        ("link_these_two", LAPTOP, TELEGRAM, BOB),
    ],
    "two people on a page": [
        *PAIRED,
        ("unlink", DISCORD, ""),
        ("wait", 301),
        ("pair_two_own_accounts", DISCORD, "slack"),
        ("wait", 301),
        *BOTH,
        LINK,
    ],
    "undone on a page": [*LINKED, ("undo_on_a_page", MALLORYS, NEWEST), ("undo_on_a_page", LAPTOP, NEWEST)],
    "undone in a chat": [*LINKED, ("undo", DISCORD, NEWEST)],
    "undone on a page that nobody has used for long": [*LINKED, ("wait", 901), ("undo_on_a_page", LAPTOP, NEWEST)],
    "read for as long as it is used": [
        *ATTACHED,
        ("wait", 601),
        ("use_a_page", LAPTOP),
        ("wait", 601),
        ("wait", 601),
        ("use_a_page", LAPTOP),
    ],
    "read for eight hours": [*ATTACHED, *[("wait", 601), ("use_a_page", LAPTOP)] * 48],
    "idle": [*SENT, ("wait", 3607), RIGHT_HERE, *SHOWN, ("type_on_a_page", LAPTOP, 1, True)],
    "a number on a page that has run out": [
        *SHOWN,
        *[("wait", 901), ("use_a_page", LAPTOP)] * 31,
        ("wait", 601),
        *SENT,
        *[("wait", 31)] * 9,
        RIGHT_HERE,
        WRONG_HERE,
    ],
    "a number for a page that has run out": [
        *SHOWN,
        *[("wait", 901), ("use_a_page", LAPTOP)] * 31,
        ("wait", 601),
        *ENTERED,
        *[("wait", 31)] * 9,
        RIGHT,
    ],
    "signed out": [*BOTH, ("sign_out", LAPTOP), ("sign_out", LAPTOP), *SHOWN],
    "signed out while a number waits": [*SENT, ("sign_out", LAPTOP), RIGHT_HERE],
    "signed out while the chat has the number": [*ENTERED, ("sign_out", LAPTOP), RIGHT],
    "signed out after the code ran out": [*SHOWN, ("wait", 601), ("sign_out", LAPTOP)],
    "signed out in the chat": [*TWO_PAGES, ("sign_out_in_the_chat", DISCORD), ("sign_out_in_the_chat", TELEGRAM)],
    "signed out in both browsers at once": [*TWO_PAGES, ("sign_out_in_the_chat", TELEGRAM)],
    "signed out in the chat of somebody else": [*TWO_PAGES, ("sign_out_in_the_chat", MALLORY)],
    "signed out in the chat while it waits": [*ATTACHED, ("wait", 31), *SENT, ("sign_out_in_the_chat", TELEGRAM)],
    "taken out of the person": [*LINKED, ("attach_an_own_account", PHONE, "discord"), ("unlink", TELEGRAM, "discord")],
    "disowned": [*LINKED, ("say_that_it_was_somebody_else", TELEGRAM)],
    "disowned when it had ended": [
        *LINKED,
        ("unlink", DISCORD, ""),
        *BOTH,
        ("say_that_it_was_somebody_else", TELEGRAM),
    ],
    "claimed for a page and a chat at once": [
        *CLAIMED,
        ("show_a_code", LAPTOP),
        ("send_a_code", SLACK, NEWEST, WORDS),
        ("type_a_number", SLACK, NEWEST, True),
        ("type_on_a_page", LAPTOP, NEWEST, True),
    ],
    "the newest of two numbers": [
        *PAIRED,
        ("wait", 301),
        ("show_a_code", LAPTOP),
        ("send_a_code", TELEGRAM, NEWEST, WORDS),
        ("ask_for_a_code", SLACK),
        ("send_a_code", DISCORD, NEWEST, WORDS),
        ("type_a_number", TELEGRAM, NEWEST, False),
    ],
}
