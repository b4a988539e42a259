"""What is left of somebody who is forgotten: rows that others' rows point to, without an id or a name."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from identity import audit
from identity.browsers import sessions as browser_sessions
from identity.flows import linking, pair_in_chat
from identity.links import locks
from identity.models import AccountLink, PlatformAccount, UnifiedUser
from identity.pairing import policy
from identity.support.sanitize import harmless


@transaction.atomic
def leave(account: PlatformAccount, among: Collection[int]) -> list[int]:
    """End what the account, and those `among` (primary keys) that it reaches at this moment, are party to: browsers,
    requests, links. The person's other accounts are told. Who has left.
    """
    held = linking.hold_links_of(account)
    leaving = [one for one in linking.reach(account) if one.pk in among]
    browser_sessions.sign_out_everywhere(*leaving)
    for one in leaving:
        pair_in_chat.cancel(account=one)
    linking.end([link for link in held if link.account in leaving], actor=audit.actor(account), method="forgotten")
    return [one.pk for one in leaving]


@transaction.atomic
def make_nameless(account: PlatformAccount) -> None:
    """Take id and names from an account, and from people who have no other. A person who has another takes its name,
    unless an operator chose theirs. The log keeps a keyed hash.
    """
    locks.lock_person(account.pk)
    audit.record(kind="forgotten", actor=audit.actor(account), account=account)
    people = list(UnifiedUser.objects.filter(links__account=account).distinct().order_by("pk"))
    nobody = f"forgotten-{secrets.token_hex(16)}"
    PlatformAccount.objects.filter(pk=account.pk).update(platform_user_id=nobody, display_name="", username="")
    UnifiedUser.objects.filter(preferred=account).update(preferred=None)
    for person in people:
        others = linking.accounts_of(person)
        if not others:
            _make_person_nameless(person)
        elif not person.is_name_chosen:
            UnifiedUser.objects.filter(pk=person.pk).update(display_name=harmless(others[0].display_name))
    _blank_operators_log([account, *people, *AccountLink.objects.filter(account=account)])


def _make_person_nameless(person: UnifiedUser) -> None:
    new_id = policy.generated_id()
    UnifiedUser.objects.filter(pk=person.pk).update(
        unified_user_id=new_id, display_name="", is_name_chosen=False, preferred=None
    )


def _blank_operators_log(rows: Iterable[PlatformAccount | UnifiedUser | AccountLink]) -> None:
    """The admin writes down how what it changed was called."""
    for row in rows:
        kind = ContentType.objects.get_for_model(row)
        LogEntry.objects.filter(content_type=kind, object_id=str(row.pk)).update(object_repr="")
