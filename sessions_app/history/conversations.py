"""Which conversation a message belongs to, and who shares it.

Where the database decides who is who, each account has a private conversation of its own, and shared history is
computed by a query over links. Any other resolver returns a string: that string names the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from django.db.models import CharField, F, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Concat, Length, Substr

from identity.flows import linking
from identity.models import AccountLink, PlatformAccount
from identity.resolvers import DatabaseIdentityResolver, Resolves, key_without_resolver, resolve_with, stranger_key
from identity.support import platforms
from sessions_app.messages import Address, InboundMessage
from sessions_app.models import Conversation, HistoryEntry, Lane


def _without_resolver(platform: str | OuterRef, platform_user_id: str | OuterRef) -> Concat:
    """`key_without_resolver` as a database expression."""
    return Concat(Value("bot_"), platform, Value("_"), platform_user_id, output_field=CharField())


# For a conversation from before there was a resolver: its account. The id is cut out of the key, so that an index finds
# the account.
_BY_KEY = PlatformAccount.objects.annotate(own_key=_without_resolver("platform", "platform_user_id")).filter(
    platform=OuterRef("platform"),
    platform_user_id=Substr(OuterRef("key"), Length(OuterRef("platform")) + len("bot__") + 1),
    own_key=OuterRef("key"),
)

# For a private conversation: its account.
_OWNER = Coalesce("account_id", _BY_KEY.values("pk")[:1])


def conversation_for(
    message: InboundMessage, account: PlatformAccount, resolver: Resolves | None
) -> tuple[Conversation, bool]:
    """The conversation of `message`, and whether this is its first message. Raises IdentityUnavailable."""
    return _direct(account, message.address, resolver) if message.is_private else _group(message.address)


def direct(account: PlatformAccount, address: Address, resolver: Resolves | None) -> Conversation:
    """The private conversation of an account, created if missing, now at `address`. Raises IdentityUnavailable."""
    return _direct(account, address, resolver)[0]


def _direct(account: PlatformAccount, address: Address, resolver: Resolves | None) -> tuple[Conversation, bool]:
    key = storage_key(account.platform, account.platform_user_id, resolver)
    return _at(Conversation.Kind.DM, key, address, account if is_computed(resolver) else None)


def is_computed(resolver: Resolves | None) -> bool:
    """Whether shared history is computed from links, so that rows are never moved and unlinking is exact."""
    return isinstance(resolver, DatabaseIdentityResolver)


def _group(address: Address) -> tuple[Conversation, bool]:
    """The conversation of a group chat, or of one thread in it."""
    return _at(Conversation.Kind.GROUP, group_key(address), address, None)


def group_key(address: Address) -> str:
    """The key of the conversation of a group chat or thread."""
    chat, thread = (part.replace("%", "%25").replace("/", "%2F") for part in (address.chat_id, address.thread_id))
    return f"{address.platform}/{chat}/{thread}"


def storage_key(platform: str, platform_user_id: str, resolver: Resolves | None) -> str:
    """The key of an account's private conversation. Raises IdentityUnavailable.

    Without a resolver it is exactly `bot_{platform}_{id}`; with links in the database it is the account's own; else it
    is the resolver's string.
    """
    if resolver is None:
        return key_without_resolver(platform, platform_user_id)
    if is_computed(resolver):
        return stranger_key(platform, platform_user_id)
    return resolve_with(resolver, platform, platform_user_id)


def keyed(key: str, address: Address) -> Conversation:
    """The private conversation under a resolver's key, created if missing."""
    return _at(Conversation.Kind.DM, key, address, None)[0]


def group(address: Address) -> Conversation:
    """The conversation of a group chat, or of one thread in it, created if missing."""
    return _group(address)[0]


def find_group(address: Address) -> Conversation | None:
    """The conversation of a group chat or thread; None if it has none."""
    return Conversation.objects.filter(kind=Conversation.Kind.GROUP, key=group_key(address)).first()


def is_private(platform: str, chat_id: str, user_id: str) -> bool:
    """Whether a chat is known to be one to one with this account. Unknown chats count as groups."""
    if chat_id in {"", user_id}:
        return True
    pattern = platforms.of(platform).private_chat
    if pattern and re.fullmatch(pattern, chat_id, re.ASCII):
        return True
    place = {"kind": Conversation.Kind.DM, "platform": platform, "chat_id": chat_id}
    return Conversation.objects.filter(**place, account__platform_user_id=user_id).exists()


def find_direct(key: str, resolver: Resolves | None) -> Conversation | None:
    """The private conversation under `key`, if `resolver` has one there."""
    direct_chats = Conversation.objects.filter(
        kind=Conversation.Kind.DM, key=key, account__isnull=not is_computed(resolver)
    )
    return direct_chats.select_related("account").first()


def before_resolvers(platform: str, platform_user_id: str) -> Conversation | None:
    """The private conversation that an account had while no resolver was configured, if it had one."""
    return find_direct(key_without_resolver(platform, platform_user_id), None)


def owner_of_event() -> Subquery:
    """An annotation for events: the account whose private conversation the event is in; None in a group."""
    conversation = Conversation.objects.filter(pk=OuterRef("conversation"))
    return Subquery(conversation.annotate(owner=_OWNER).values("owner")[:1])


def before_resolvers_of_accounts() -> QuerySet[Conversation]:
    """`before_resolvers` within a subquery of a query of accounts."""
    key = _without_resolver(OuterRef(OuterRef("platform")), OuterRef(OuterRef("platform_user_id")))
    own = {"kind": Conversation.Kind.DM, "account": None, "platform": OuterRef(OuterRef("platform"))}
    return Conversation.objects.filter(**own, key=key)


def of_accounts(account_ids: Collection[int]) -> QuerySet[Conversation]:
    """The private conversations of these accounts, with those that they had while no resolver was configured."""
    pairs = PlatformAccount.objects.filter(pk__in=account_ids).values_list("platform", "platform_user_id")
    before = Q(pk__in=())
    for platform, user_id in pairs:
        before |= Q(account=None, platform=platform, key=key_without_resolver(platform, user_id))
    return Conversation.objects.filter(Q(account__in=account_ids) | before, kind=Conversation.Kind.DM)


def last_used_by(unified_user_id: str) -> Conversation | None:
    """The private conversation of a person's linked accounts that was used last."""
    return _latest(_links_of(unified_user_id))


def preferred_of(unified_user_id: str) -> Conversation | None:
    """The private conversation for messages that a person did not ask for: the preferred one, else the last used one.

    An account that is linked for less than a day comes after all older ones.
    """
    links = _links_of(unified_user_id).exclude(account__conversation__chat_id="")  # only programs wrote there
    preferred = links.filter(user__preferred=F("account"))
    return _latest(preferred) or _latest(linking.established(links)) or _latest(links)


def account_of(unified_user_id: str, *, platform: str) -> PlatformAccount | None:
    """An account of a person: the first one on `platform`, else the one that was linked first."""
    links = _links_of(unified_user_id).select_related("account").order_by("since", "pk")
    accounts = [link.account for link in links]
    return next((account for account in accounts if account.platform == platform), accounts[0] if accounts else None)


def _links_of(unified_user_id: str) -> QuerySet[AccountLink]:
    return AccountLink.objects.live().filter(user__unified_user_id=unified_user_id)


def _latest(links: QuerySet[AccountLink]) -> Conversation | None:
    """The private conversation of these accounts that was used last."""
    newest = HistoryEntry.objects.filter(conversation=OuterRef("pk")).order_by("-said_at", "-id")
    chats = Conversation.objects.filter(account__in=links.values("account")).select_related("account")
    used = chats.annotate(last=Subquery(newest.values("said_at")[:1]))
    return used.order_by(F("last").desc(nulls_last=True), "-pk").first()


def _at(kind: str, key: str, address: Address, account: PlatformAccount | None) -> tuple[Conversation, bool]:
    """The conversation, now at `address`, and whether this is its first message from a person.

    It may have been created before by a program that wrote there.
    """
    place = {"platform": address.platform, "chat_id": address.chat_id, "thread_id": address.thread_id}
    conversation = Conversation.objects.filter(kind=kind, key=key, account=account).first()
    if conversation is None:
        conversation = Conversation.objects.create(kind=kind, key=key, account=account, **place)
        Lane.objects.create(conversation=conversation)
        return conversation, True
    is_first = bool(address.chat_id) and not conversation.chat_id
    if address.chat_id and place != {name: getattr(conversation, name) for name in place}:
        Conversation.objects.filter(pk=conversation.pk).update(**place)
    return conversation, is_first
