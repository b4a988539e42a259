"""The handshake as people go through it, through the real SDKs: typed, pressed, mistyped and interrupted."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from itertools import permutations
from statistics import median
from typing import Any

import pytest
from django.db.models import QuerySet

from identity.flows import link_maintenance, pair_in_chat
from identity.links import lookup
from identity.models import AccountLink, BotProfile, Pairing
from identity.pairing.secrets import secrets_of
from identity.support import clock
from sessions_app.models import HistoryEntry, InboundEvent, OutboundDelivery
from tests.fakes.discord import FakeDiscord
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram
from tests.journeys.chats import Chat, claimed, code_in, linked, number_in
from tests.journeys.running import PLATFORMS, TO_BE_KILLED, Bots, Platforms, eventually, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

TITLES = {"telegram": "Telegram", "discord": "Discord", "slack": "Slack"}
GROUPS = {"telegram": "-100200300", "discord": "400000000000000001", "slack": "C0GENERAL"}
OTHER = {"telegram": "discord", "discord": "slack", "slack": "telegram"}
NO_CODE = "That code doesn't work. Codes work once, for 10 minutes. Send {}link in your other app for a new one."
DENIED = 'Nothing was linked: one of the two accounts said "Not me".'
ALONE = "This account is no longer linked. Each app keeps its own messages."
_numbers = itertools.count(100)  # of people
NOTHING_THERE = "You have no pending request or link like that."


def slash(chat: Chat) -> str:
    return "!" if chat.platform == "slack" else "/"


def no_code(chat: Chat) -> str:
    return NO_CODE.format(slash(chat))


def named(chat: Chat) -> str:
    """How the others are told who it is."""
    who = chat.person
    at = "@" if chat.platform == "telegram" else ""
    return f'{TITLES[chat.platform]} account "{who.name}" ({at}{who.username}, ID ..{who.id[-4:]})'


def telegram_server(platforms: Platforms) -> FakeTelegram:
    server = platforms.servers["telegram"]
    assert isinstance(server, FakeTelegram)
    return server


def discord_server(platforms: Platforms) -> FakeDiscord:
    server = platforms.servers["discord"]
    assert isinstance(server, FakeDiscord)
    return server


def slack_server(platforms: Platforms) -> FakeSlack:
    server = platforms.servers["slack"]
    assert isinstance(server, FakeSlack)
    return server


@pytest.fixture
def bots(platforms: Platforms) -> Iterator[Bots]:
    with running(platforms) as bots:
        eventually(lambda: BotProfile.objects.count() == 3)
        yield bots


# -- typed, from each platform to each other one


def test_it_links_each_platform_with_each_other_one(
    platforms: Platforms, bots: Bots, record_property: Callable[[str, object], None]
) -> None:
    waits = []
    for number, (first, second) in enumerate(permutations(PLATFORMS, 2)):
        initiator, responder = Chat(platforms, first, number), Chat(platforms, second, number)

        _offer(initiator)
        _number(initiator, responder)
        _linked(initiator, responder)
        assert initiator.asks("My favourite colour is octarine.").startswith("Got it!")
        assert responder.asks("What's my favourite colour?") == "Octarine."

        waits += [*initiator.waits[:2], responder.waits[0]]
    record_property("median_step_seconds", round(median(waits), 3))
    print(f"median of {len(waits)} typed steps: {median(waits):.3f} s, longest {max(waits):.3f} s")

    assert AccountLink.objects.live().count() == 12
    assert AccountLink.objects.values("user").distinct().count() == 6
    assert not OutboundDelivery.objects.exclude(template="").exclude(text="").exists()
    said = HistoryEntry.objects.values_list("text", flat=True)
    assert not [text for text in said if re.search(r"[A-Z]{4}-[A-Z]{4}|\d{3} \d{3}", text)]


def _offer(initiator: Chat) -> None:
    text = initiator.asks("/link")
    found = re.fullmatch(
        r"Link another app to this chat\.\n1\) Open me there: (.+)\n2\) Send me this code there: [A-Z]{4}-[A-Z]{4}\n\n"
        r"It works once, for 10 minutes\. Did someone ask you for a code\? Then press Cancel\.",
        text,
    )
    assert found, text
    doors = {
        "telegram": "Telegram (https://t.me/BotosPlaygroundBot)",
        "discord": r"Discord (https://discord.com/users/",
        "slack": "Slack (botos)",
    }
    assert [platform for platform in PLATFORMS if doors[platform] in found[1]] == [
        platform for platform in PLATFORMS if platform != initiator.platform
    ]
    assert initiator.labels == ["Cancel"]


def _number(initiator: Chat, responder: Chat) -> None:
    code = code_in(initiator.replies[-1].text)
    text = responder.asks(code.lower().replace("-", " "))
    number = number_in(text)
    expected = (
        f"{named(initiator)} wants to share one conversation with this {TITLES[responder.platform]} account. If both "
        f"are yours, go back to that chat and type {number} (5 minutes). Anyone who types it can read what you write "
        "here from now on. Never send it to anyone."
    )
    if responder.platform == "slack":
        expected += " Your workspace admins may be able to read this chat."
    assert (text, responder.labels) == (expected, ["Not me"])
    assert initiator.hears() == f"{named(responder)} used your code. Yours? Type the 6-digit number it shows."
    assert initiator.labels == ["Not me"]


def _linked(initiator: Chat, responder: Chat) -> None:
    told = "Linked. From now on these chats share one conversation. Earlier messages stay separate."
    assert initiator.asks(number_in(responder.replies[-1].text)) == told
    assert responder.hears() == told
    for side in (initiator, responder):
        assert side.labels == ["Share my earlier messages from this app", "Undo"]


def test_it_takes_what_is_chosen_from_the_menu(platforms: Platforms, bots: Bots) -> None:
    telegram, discord, slack = (Chat(platforms, platform) for platform in PLATFORMS)
    eventually(lambda: discord_server(platforms).rest.commands)

    platforms.do(discord_server(platforms).command(discord.person, "link"))
    platforms.do(slack_server(platforms).command(slack.person, "/link", code_in(discord.hears())))
    number = number_in(slack.hears())
    discord.hears()
    assert (discord.asks(number)[:8], slack.hears()[:8]) == ("Linked. ", "Linked. ")
    number = claimed(slack, telegram)
    assert f"It would share the conversation with these too: {named(discord)}." in slack.replies[-1].text
    slack.asks(number)

    assert AccountLink.objects.live().count() == 3
    assert discord.hears().startswith(f"{named(telegram)} now shares this conversation.")
    assert discord.labels == ["That wasn't me"]
    assert set(InboundEvent.objects.values_list("kind", "text")) == {("pairing", "")}


# -- pressed


def test_it_does_what_is_pressed(platforms: Platforms, bots: Bots) -> None:
    scenes = (_press_cancel, _press_not_me, _press_not_me_as_responder, _press_share_and_undo, _press_wasnt_me)
    for platform in PLATFORMS:
        for scene in scenes:
            scene(*_two_strangers(platforms, platform))
            assert not AccountLink.objects.live().exists()


def _two_strangers(platforms: Platforms, platform: str) -> tuple[Chat, Chat]:
    """Two chats in which nothing was said so far, on `platform` and on another one."""
    number = next(_numbers)
    return Chat(platforms, platform, number), Chat(platforms, OTHER[platform], number)


def _press_cancel(chat: Chat, other: Chat) -> None:
    code = code_in(chat.asks("/link"))
    assert chat.presses("Cancel") == "Cancelled. Nothing was linked."
    assert other.asks(code) == no_code(other)
    assert chat.presses("Cancel", under="Link another app") == NOTHING_THERE


def _press_not_me(chat: Chat, other: Chat) -> None:
    claimed(chat, other)
    assert (chat.presses("Not me"), other.hears()) == (DENIED, DENIED)
    assert _rejected() == other.person.id


def _press_not_me_as_responder(chat: Chat, other: Chat) -> None:
    number = claimed(other, chat)
    assert (chat.presses("Not me"), other.hears()) == (DENIED, DENIED)
    assert _rejected() == other.person.id
    assert other.asks(number) not in (DENIED, "Linked.")


def _rejected() -> str:
    """Against whom the newest request speaks."""
    account = Pairing.objects.latest("created_at").strike
    return account.platform_user_id if account else ""


def _press_share_and_undo(chat: Chat, other: Chat) -> None:
    chat.asks("My favourite colour is octarine.")
    linked(other, chat)
    assert "octarine" not in other.asks("What's my favourite colour?").lower()

    assert chat.presses("Share my earlier messages from this app").startswith("Your other apps now share")
    assert other.hears() == f"{named(chat)} now shares its earlier messages here too."
    assert other.asks("What's my favourite colour?") == "Octarine."

    chat.press("Undo", under="Linked. ")
    assert chat.hears() == ALONE
    assert (other.hears(), other.hears()) == (f"{named(chat)} no longer shares this conversation.", ALONE)
    assert "octarine" not in other.asks("What's my favourite colour?").lower()


def _press_wasnt_me(chat: Chat, other: Chat) -> None:
    linked(other, chat)
    AccountLink.objects.live().update(remind_at=clock.seconds_from_now(-1))
    link_maintenance.remind()
    for side in (chat, other):
        assert {side.hears().partition(":")[0], side.hears().partition(":")[0]} == {"A reminder"}

    told = chat.presses("That wasn't me", under=f"A reminder: {named(other)}")
    assert told == f"{named(other)} no longer shares this conversation."
    assert other.hears() == ALONE
    assert AccountLink.objects.exclude(ended_at=None).latest("ended_at").disowned
    assert chat.asks("/unlink") == ALONE


# -- mistyped, too late, in the wrong place


def test_it_says_why_a_code_does_not_do(platforms: Platforms, bots: Bots) -> None:
    scenes = (_wrong, _expired, _used, _foreign, _own, _in_a_group, _replaced, _for_another, _wrong_numbers)
    for platform in PLATFORMS:
        for scene in scenes:
            responder, initiator = _two_strangers(platforms, platform)
            scene(initiator, responder)
    _not_here_and_now(platforms)
    _where_two_people_read_it(platforms)

    assert not AccountLink.objects.exists()


def _wrong(initiator: Chat, responder: Chat) -> None:
    for code in ("BCDF-GHJK", "/link BCDFGHJK", "look, BCDF-GHJK!", "ｂｃｄｆ ｇｈｊｋ", "/link nonsense"):
        assert responder.asks(code) == no_code(responder)
    assert responder.asks(code_in(initiator.asks("/link"))) == "Too many wrong codes. Wait 15 minutes."


def _expired(initiator: Chat, responder: Chat) -> None:
    code = code_in(initiator.asks("/link"))
    _newest().update(expires_at=clock.seconds_from_now(-1))
    assert responder.asks(code) == no_code(responder)


def _used(initiator: Chat, responder: Chat) -> None:
    number = claimed(initiator, responder)
    assert responder.asks(code_in(initiator.replies[0].text)) == no_code(responder)
    _newest().update(expires_at=clock.seconds_from_now(-1))
    assert "Linked" not in initiator.asks(number)


def _foreign(mallory: Chat, responder: Chat) -> None:
    """Somebody else's code opens nothing: it says whose it is, and the number is with whoever was talked into it."""
    claimed(mallory, responder)
    assert responder.replies[-1].text.startswith(f"{named(mallory)} wants to share one conversation with this ")
    assert (responder.presses("Not me"), mallory.hears()) == (DENIED, DENIED)


def _own(initiator: Chat, responder: Chat) -> None:
    code = code_in(initiator.asks("/link"))
    assert initiator.asks(code) == "That code is from this chat: send it in your other app."
    number = number_in(responder.asks(code))
    assert responder.asks(number) == "Type this in your other app, in the chat where you started."


def _in_a_group(initiator: Chat, responder: Chat) -> None:
    code = code_in(initiator.asks("/link"))
    group = GROUPS[responder.platform]
    responder.says(f"my code is {code}", group=group, mention=responder.platform == "discord")
    burned = (
        "Your code was posted in a group, so it no longer works. Send {}link for a new one, and keep it to yourself."
    )
    assert initiator.hears() == burned.format(slash(initiator))
    assert responder.asks(code) == no_code(responder)
    assert not responder.said_by_bot_in(group)


def _replaced(initiator: Chat, responder: Chat) -> None:
    old = code_in(initiator.asks("/link"))
    assert re.fullmatch(r"Wait \d+ seconds, then send [/!]link\.", initiator.asks("/link"))
    _newest().update(created_at=clock.seconds_from_now(-40))
    new = code_in(initiator.asks("/link"))
    assert responder.asks(old) == no_code(responder)
    assert number_in(responder.asks(new))


def _for_another(initiator: Chat, responder: Chat) -> None:
    person = lookup.person_for(unified_user_id=f"bob-{responder.platform}")
    invitation = pair_in_chat.invite(person=person, operator="carol", platform=initiator.platform)
    assert responder.asks(secrets_of(invitation).code) == "That code is for another app."


def _wrong_numbers(initiator: Chat, responder: Chat) -> None:
    number = claimed(initiator, responder)
    wrong = "000 000" if number != "000 000" else "000 001"
    assert initiator.asks(wrong) == "That's not the right number. 2 tries left."
    assert initiator.asks(wrong) == "That's not the right number. 1 try left."
    locked = "Too many wrong numbers, so nothing was linked. You need a new code."
    assert initiator.asks(wrong) == locked
    assert responder.hears() == locked.replace(slash(initiator), slash(responder))
    assert "Linked" not in initiator.asks(number)


def _not_here_and_now(platforms: Platforms) -> None:
    refused = "Please type that yourself, here and now. Forwarded, edited or old messages don't count."
    bob, alice = _two_strangers(platforms, "telegram")
    code = code_in(alice.asks("/link"))
    bob.asks("hello")
    platforms.do(telegram_server(platforms).forward(bob.person, code))
    assert bob.hears() == refused
    platforms.do(telegram_server(platforms).push_raw(_telegram_message(bob, code, seconds_ago=700)))
    assert bob.hears().startswith("Your message seems to have taken very long to reach me")
    assert _newest().get().state == "offered"


def _telegram_message(chat: Chat, text: str, *, seconds_ago: int) -> dict[str, Any]:
    who = {"id": int(chat.person.id), "is_bot": False, "first_name": chat.person.name}
    place = {"id": who["id"], "type": "private", "first_name": chat.person.name}
    date = int(time.time()) - seconds_ago
    return {"message": {"message_id": 1, "date": date, "from": who, "chat": place, "text": text}}


def _where_two_people_read_it(platforms: Platforms) -> None:
    """A command on Slack also works in the private chat of two people."""
    mallory, alice = _two_strangers(platforms, "slack")
    code = code_in(alice.asks("/link"))
    platforms.do(slack_server(platforms).command(mallory.person, "/link", code, group="D0TWOPEOPLE"))
    assert alice.hears().startswith("Your code was posted in a group")
    assert _newest().get().state == "burned"


def _newest() -> QuerySet[Pairing]:
    return Pairing.objects.filter(pk=Pairing.objects.latest("created_at").pk)


# -- interrupted


def test_it_goes_on_after_a_kill_between_the_steps(platforms: Platforms) -> None:
    alice, other = Chat(platforms, "telegram"), Chat(platforms, "discord")
    both = ("--platforms", "telegram", "discord")
    with running(platforms, *both, up="telegram discord", **TO_BE_KILLED) as bots:
        code = code_in(alice.asks("/link"))
        _kill(bots)
    with running(platforms, *both, up="telegram discord", **TO_BE_KILLED) as bots:
        number = number_in(other.asks(code))
        alice.hears()
        _kill(bots)
    with running(platforms, *both, up="telegram discord", **TO_BE_KILLED) as bots:
        alice.says(number)
        eventually(lambda: AccountLink.objects.live().count() == 2)
        _kill(bots)  # whoever was not told yet is told after the restart
    with running(platforms, *both, up="telegram discord"):
        for side in (alice, other):
            while "Linked. " not in side.hears():
                pass  # something that was being sent when the process died, said again
        eventually(lambda: not OutboundDelivery.objects.filter(settled_at=None).exists())

    assert Pairing.objects.get().state == "linked"
    assert AccountLink.objects.values("user").distinct().count() == 1


def _kill(bots: Bots) -> None:
    """Then let time go by: what was being sent in that moment is tried again after a minute."""
    bots.kill()
    OutboundDelivery.objects.filter(settled_at=None).update(lease_until=clock.EPOCH)
