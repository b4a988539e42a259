"""The names of an account that is forgotten stand in no table and no file afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import models
from django.test import Client
from django.urls import reverse

from identity import operators
from identity.flows import pair_in_chat
from identity.models import AccountLink, Pairing, PlatformAccount, UnifiedUser
from identity.operators import NewPerson
from sessions_app import inbox
from sessions_app.messages import Sender
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import confirmation
from sessions_app.turns import lifecycle
from tests.identity import pairs
from tests.sessions_app import browsing
from tests.sessions_app.talk import DATABASE, claim, message, say
from tests.sessions_app.test_forgetting import account, asked, deliver, everything, go_on, type_number

pytestmark = pytest.mark.django_db(transaction=True)

NAME, HANDLE = "Quokkaname", "quokkahandle"
CANARIES = (NAME, NAME.casefold(), HANDLE, "quokkaid")


def talks(text: str, *, group: str = "") -> None:
    """The one who is to be forgotten writes, and is answered."""
    sent = replace(message("quokkaid", text, group=group), sender=Sender("quokkaid", NAME, HANDLE))
    conversation = inbox.receive(sent, resolver=DATABASE)
    if conversation is not None:
        lifecycle.finish(claim(conversation), f"hello {NAME}", limit=outbox_queue.TEXT_LIMIT)


def found() -> set[str]:
    """Columns of all tables, and the database's files, that have one of the names."""
    hits = {f"{model._meta.label}.{field.name}" for model in _tables() for field in _told_by(model)}
    return hits | {f"file: {name}" for name in CANARIES if name.encode() in everything()}


def _tables() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if model._meta.managed]


def _told_by(model: type[models.Model]) -> list[Any]:
    kept = [field for field in model._meta.concrete_fields if not field.is_relation]
    rows = list(model._default_manager.values_list(*(field.attname for field in kept)))
    return [field for at, field in enumerate(kept) if any(_has_canary(row[at]) for row in rows)]


def _has_canary(value: object) -> bool:
    words = bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)
    return any(name.casefold() in words.casefold() for name in CANARIES)


@pytest.fixture
def linked() -> PlatformAccount:
    """The account has talked, in a group too, and linked another one today by the handshake. All notices are sent."""
    talks("good morning")
    say("zaphod", "good evening", platform="discord", answer="hello")
    say("bob", "I am bob", group="pub", answer="hello bob")
    talks("me too", group="pub")
    one, other = account("quokkaid"), account("zaphod", "discord")
    pairs.linked(one, other)
    browser = browsing.browser_of(one, other)
    browsing.converse(browser, one, "from the page", "heard")
    for command in ("/whoami", "/accounts"):
        talks(command)
    inbox.receive(message("zaphod", "/accounts", platform="discord"), resolver=DATABASE)
    deliver()
    return other


def _looked_at_by_an_operator(person: UnifiedUser) -> None:
    """The admin's own log calls each thing that was changed by its name."""
    user = User.objects.create_superuser("root", password="secret")
    for row in (person, account("quokkaid"), AccountLink.objects.live().get(account=account("quokkaid"))):
        LogEntry.objects.log_actions(user.pk, [row], 2, change_message=[{"changed": {"fields": ["name"]}}])
    client = Client()
    client.force_login(user)
    client.get(reverse("admin:identity_unifieduser_change", args=[person.pk]))


def _forget() -> None:
    request = asked("quokkaid")
    deliver()
    type_number(confirmation.number_of(request), "quokkaid")
    deliver()
    assert go_on() == 1


def test_no_name_of_a_forgotten_account_stays_where_another_one_stays(linked: PlatformAccount) -> None:
    person = UnifiedUser.objects.get()
    _looked_at_by_an_operator(person)
    assert {"identity.UnifiedUser.display_name", "admin.LogEntry.object_repr"} <= found()

    _forget()

    assert found() == set()
    person.refresh_from_db()
    assert person.display_name == linked.display_name == "Zaphod"


def test_no_name_stays_on_a_person_whom_the_account_left_before(linked: PlatformAccount) -> None:
    person = UnifiedUser.objects.get()
    talks("/unlink")
    deliver()
    assert person.display_name == NAME

    _forget()

    assert found() == set()


def test_no_name_stays_of_an_account_that_asked_others_and_was_refused(linked: PlatformAccount) -> None:
    say("bob", "hello", platform="slack", answer="hello")
    talks("/unlink")
    pairs.later(86_400, Pairing.objects.all())
    request = pairs.claimed(account("bob", "slack"), account("quokkaid"))
    deliver()
    pair_in_chat.deny(account=account("bob", "slack"), pairing_id=request.pk)
    deliver()

    _forget()

    assert found() == set()


@pytest.mark.parametrize("how", ["added", "renamed", "imported"])
def test_a_name_that_an_operator_chose_stays(linked: PlatformAccount, how: str) -> None:
    if how == "renamed":
        operators.rename_person(person=UnifiedUser.objects.get(), display_name="Customer 7", operator="root")
    else:
        talks("/unlink")
        say("bob", "hello", platform="slack", answer="hello")
        chosen = NewPerson("c-7", "Customer 7")
        if how == "added":
            operators.add_person(person=chosen, operator="root")
        else:
            operators.import_people(people=[chosen], operator="root")
        pairs.person("c-7", account("quokkaid"), account("bob", "slack"))

    _forget()

    assert found() == set()
    assert UnifiedUser.objects.filter(display_name="Customer 7").exists()
