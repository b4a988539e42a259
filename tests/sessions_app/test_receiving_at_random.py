"""Random messages, handed in all at once, leave the rows that the same messages leave one by one."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.db import models
from pytest_django import Settings

from identity.models import AccountLink, AuditEvent, GuessLimit, Pairing, PlatformAccount, UnifiedUser
from identity.resolvers import DatabaseIdentityResolver, InMemoryIdentityResolver, Resolves
from identity.support import clock
from sessions_app import inbox
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender
from sessions_app.models import (
    Conversation,
    ForgottenEvent,
    InboundEvent,
    Lane,
    OutboundDelivery,
    Watermark,
)
from sessions_app.receiver import Receiver
from sessions_app.receiving import group, settling, tombstones
from tests.empty import Emptied
from tests.identity import pairs

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def settles(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages wait for each other, however long the test takes."""
    settings.BOTOS_SETTLE_SECONDS = 0.3
    monkeypatch.setattr(settling, "MAX_SECONDS", 3600.0)


Item = InboundMessage | MessageEdit
Result = int | str | None

COMPARED: list[type[models.Model]] = [
    PlatformAccount,
    UnifiedUser,
    AccountLink,
    Pairing,
    GuessLimit,
    AuditEvent,
    Conversation,
    Lane,
    InboundEvent,
    Watermark,
    OutboundDelivery,
    ForgottenEvent,
]
PEOPLE = ("alice", "bob", "carol")
BURSTS, MAX_IN_A_BURST = 6, 25


class Play:
    """The messages of one play. A burst is made when it begins, as codes and numbers are those of its moment."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.said: list[InboundMessage] = []
        self.count = 0

    def burst(self) -> list[Item]:
        """What is handed in at once. Most of it is plain, or nothing would be stored together."""
        return [self.item() for _ in range(self.dice.randint(1, MAX_IN_A_BURST))]

    def item(self) -> Item:
        kind = self.dice.choice(["plain"] * 12 + ["odd"] * 2 + ["secret", "again", "edit", "changed", "special"])
        if kind == "again" and self.said:
            return self.dice.choice(self.said)
        if kind == "edit" and self.said:
            edited, text = self.dice.choice(self.said), self.dice.choice(["edited", "482 913", self.secret()])
            return MessageEdit(edited.address, edited.message_id, text)
        message = self.message(f"words {self.count}")
        if kind == "odd":
            commands = ["/link", "/accounts", "/new", "/new words", "/cancel", "/help", "/whoami", "!unlink"]
            others = ["!new words", "/hlep", "!wow", "call 482 913", "123456", "a\x00b", ""]
            message = replace(message, text=self.dice.choice([*commands, *others]))
        elif kind == "secret":
            message = replace(message, text=self.dice.choice(["{}", "look: {}", "/link {}"]).format(self.secret()))
        elif kind == "changed":
            message = replace(message, **self.change(message))
        elif kind == "special":
            specials: list[dict[str, Any]] = [
                {"is_addressed": message.is_private},
                {"is_firsthand": False},
                {"more_may_follow": True},
                {"text": "x" * 4096},
                {"is_from_history": True, "sent_at": clock.read() - timedelta(hours=1)},
                {"sent_at": clock.read() - timedelta(hours=1)},
                {"native_key": ""},
            ]
            message = replace(message, **self.dice.choice(specials))
        self.said.append(message)
        return message

    def message(self, text: str) -> InboundMessage:
        self.count += 1
        who = self.dice.choice(PEOPLE) if self.dice.random() < 0.97 else f"stranger-{self.count}"
        place = self.dice.choice(["", "", "", "pub"])
        return InboundMessage(
            native_key=f"key-{self.count}",
            address=Address("telegram", place or f"chat-{who}", self.dice.choice(["", "1"]) if place else ""),
            sender=Sender(f"{who}-telegram", who.title(), who),
            text=text,
            message_id=f"m-{self.count}",
            chat_name=place or who.title(),
            is_private=not place,
            position=self.dice.choice([None, self.dice.randint(1, 1000)]),
        )

    def change(self, message: InboundMessage) -> dict[str, Any]:
        name = self.dice.choice(["Mallory", "x" * 200, "a\x00b"])
        changes: list[dict[str, Any]] = [
            {"sender": replace(message.sender, name=name)},
            {"sender": replace(message.sender, username=name)},
            {"chat_name": name},
        ]
        if message.is_private:
            changes.append({"address": replace(message.address, chat_id=message.address.chat_id + "-new")})
        return self.dice.choice(changes)

    def secret(self) -> str:
        """A live code or number, if there is one."""
        request = Pairing.objects.filter(ended_at=None).order_by("created_at", "initiator").last()
        if request is None:
            return self.dice.choice(["WDJB-MJHT", "482913"])
        if request.state == "claimed":
            return pairs.number(request)
        code = pairs.code(request)
        return self.dice.choice([code, f"{code[:4]}-{code[4:]}", pairs.token(request)])

    def between(self) -> None:
        """What others do between two bursts."""
        deed = self.dice.choice(["nothing", "delete", "silence", "start"])
        if deed == "delete" and len(self.said) >= 3:
            keys = {said.native_key for said in self.dice.sample(self.said, k=3)}
            deleted = InboundEvent.objects.filter(native_key__in=keys)
            tombstones.remember(deleted)
            deleted.delete()
        elif deed == "silence":
            PlatformAccount.objects.filter(platform_user_id__startswith=self.dice.choice(PEOPLE)).update(
                seen_at=clock.seconds_from_now(-100_000)
            )
        elif deed == "start":
            InboundEvent.objects.filter(done_at=None).update(starts=1)


def one_by_one(items: Sequence[Item], resolver: Resolves | None) -> list[Result]:
    """What came of each message: the conversation to wake, None, or the error."""
    results: list[Result] = []
    for item in items:
        try:
            if isinstance(item, MessageEdit):
                inbox.edit(item)
                results.append(None)
            else:
                results.append(inbox.receive(item, resolver=resolver))
        except Exception as error:  # noqa: BLE001 - is compared
            results.append(type(error).__name__)
    return results


def all_at_once(items: Sequence[Item], resolver: Resolves | None) -> tuple[list[str | None], set[int]]:
    """The error of each message, and the conversations that were woken."""
    woken: set[int] = set()

    async def hand_in() -> list[BaseException | None]:
        receiver = Receiver(resolver, on_turn=woken.add, on_outgoing=lambda: None)
        return await asyncio.gather(*(receiver.receive(item) for item in items), return_exceptions=True)

    return [type(error).__name__ if error else None for error in async_to_sync(hand_in)()], woken


def rows() -> dict[str, list[dict[str, object]]]:
    """All rows in the order of their keys. What is random or a moment is replaced by a word that stands for it."""
    order = {model: ordered(model) for model in COMPARED}
    return {
        model.__name__: [
            {field.attname: comparable(row, field, order) for field in model._meta.concrete_fields}
            for row in order[model].values()
        ]
        for model in COMPARED
    }


def ordered(model: type[models.Model]) -> dict[object, Any]:
    keys = {Pairing: ("created_at",), ForgottenEvent: ("forgotten_at", "pk")}.get(model, ("pk",))
    return {row.pk: row for row in model._default_manager.order_by(*keys)}


def comparable(row: Any, field: models.Field[Any, Any], order: dict[type[models.Model], dict[object, Any]]) -> object:
    value = getattr(row, field.attname)
    if isinstance(field, models.ForeignKey) and field.related_model in order and value is not None:
        return list(order[field.related_model]).index(value)
    if field.primary_key and isinstance(value, int | UUID):
        return list(order[type(row)]).index(value)
    if field.name == "ready_at" and value is not None:
        together = [one for one in order[InboundEvent].values() if one.ready_at == value]
        newest = together[-1]
        waits = (value - newest.received_at).total_seconds()
        return f"{'long' if waits > 0.65 else 'short'} after {list(order[InboundEvent]).index(newest.pk)}"
    if isinstance(value, datetime):
        return "never" if value == clock.EPOCH else "once"
    if field.name in {"nonce", "code_hash", "token_hash"}:
        return value is None
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict | list):
        return masked(repr(len(value) if field.name == "times" else sorted(value)))
    return value


def masked(text: str) -> str:
    """Without codes and numbers, ids of requests and of people: they are others in each run."""
    words = (r"[0-9a-f]{8}-[0-9a-f-]{27}", r"[A-Z]{4}-?[A-Z]{4}", r"\b[0-9]{6}\b", r"u-[0-9a-f]{16}", r"\bL[\w-]{22}")
    return re.sub("|".join(words), "?", text)


def played(seed: int, resolver: Resolves | None) -> Iterator[tuple[list[Item], Play]]:
    play = Play(seed)
    for who in PEOPLE[:2]:
        one_by_one([replace(play.message("hello"), sender=Sender(f"{who}-telegram", who.title(), who))], resolver)
    for _ in range(BURSTS):
        yield play.burst(), play
        play.between()


def check(seed: int, resolver: Resolves | None, together: list[int]) -> set[str]:
    """Compare both ways, and return how long messages wait for others."""
    emptied = Emptied()
    wanted: list[tuple[list[str | None], set[int]]] = []
    for items, _ in played(seed, resolver):
        results = one_by_one(items, resolver)
        errors = [result if isinstance(result, str) else None for result in results]
        chats = list(Conversation.objects.order_by("pk").values_list("pk", flat=True))
        wanted.append((errors, {chats.index(result) for result in results if isinstance(result, int)}))
    expected = rows()
    emptied.bring_back()

    for (items, _), (errors, chats_to_wake) in zip(played(seed, resolver), wanted, strict=True):
        told, woken = all_at_once(items, resolver)
        chats = list(Conversation.objects.order_by("pk").values_list("pk", flat=True))
        assert told == errors
        assert {chats.index(pk) for pk in woken} == chats_to_wake
    found = rows()
    for name, several in expected.items():
        assert found[name] == several, name
    moments = list(InboundEvent.objects.order_by("pk").values_list("received_at", flat=True))
    assert moments == sorted(set(moments))
    return {str(row["ready_at"]).partition(" ")[0] for row in found["InboundEvent"]}


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages were stored in each transaction of a group."""
    stored: list[int] = []
    really = group.store

    def store(messages: Sequence[InboundMessage]) -> group.Prefix:
        prefix = really(messages)
        stored.append(len(prefix.events))
        return prefix

    monkeypatch.setattr(group, "store", store)
    return stored


@pytest.mark.parametrize("plays", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_it_leaves_the_rows_of_messages_that_come_one_by_one(plays: int, together: list[int]) -> None:
    emptied, waits = Emptied(), set[str]()
    for seed in range(plays):
        waits |= check(seed, DatabaseIdentityResolver(), together)
        emptied.bring_back()
    assert waits == {"None", "short", "long"}
    assert max(together) > 5
    assert 0 in together


@pytest.mark.parametrize("resolver", [None, InMemoryIdentityResolver()], ids=["none", "memory"])
def test_it_does_so_where_the_database_does_not_decide_who_is_who(
    resolver: Resolves | None, together: list[int]
) -> None:
    check(1, resolver, together)
