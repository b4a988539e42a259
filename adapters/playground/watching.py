"""What the page shows of the database: what an agent is given for each app of a persona."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from django.conf import settings
from django.db.models import Q

from adapters.playground.server import Person
from adapters.playground.stage import Persona
from identity.models import AccountLink, PlatformAccount
from sessions_app.history import window
from sessions_app.messages import Line
from sessions_app.models import Conversation, InboundEvent, OutboundDelivery


@dataclass(frozen=True, slots=True)
class Watched:
    """`windows`: what an agent would be given for the next message on each platform. `linked`: the platforms whose
    accounts share a conversation.
    """

    windows: dict[str, tuple[Line, ...]] = field(default_factory=dict)
    linked: tuple[str, ...] = ()


def watch(persona: Persona) -> Watched:
    """How things stand for a persona now."""
    links = AccountLink.objects.live().filter(_any_of(persona.accounts, "account__"))
    linked = set(links.values_list("account__platform", flat=True))
    return Watched(_windows(persona), tuple(one for one in persona.accounts if one in linked))


def busy_platforms(persona: Persona) -> frozenset[str]:
    """Where a message of the persona waits for its turn, or words to them for being sent."""
    theirs = _any_of(persona.accounts, "account__")
    waiting = InboundEvent.objects.filter(theirs, done_at=None).values_list("platform")
    conversations = Conversation.objects.filter(theirs).values("chat_id")
    leaving = OutboundDelivery.objects.filter(settled_at=None, chat_id__in=conversations).values_list("platform")
    return frozenset(platform for (platform,) in waiting.union(leaving))


def is_known(persona: Persona) -> bool:
    """Whether the persona has ever said anything."""
    return PlatformAccount.objects.filter(_any_of(persona.accounts)).exists()


def _windows(persona: Persona) -> dict[str, tuple[Line, ...]]:
    """By the one road from history to an agent."""
    found = Conversation.objects.filter(_any_of(persona.accounts, "account__")).select_related("account")
    windows = {one.platform: window.window_for(one, limit=settings.BOTOS_WINDOW) for one in found}
    return {platform: windows.get(platform, ()) for platform in persona.accounts}


def _any_of(accounts: dict[str, Person], prefix: str = "") -> Q:
    each = [Q(**{f"{prefix}platform": p, f"{prefix}platform_user_id": one.id}) for p, one in accounts.items()]
    return reduce(or_, each)


def is_persona(personas: tuple[Persona, ...]) -> Q:
    """The accounts of played people."""
    return reduce(or_, (_any_of(persona.accounts) for persona in personas))
