"""Forgets an account: ends what it takes part in, and empties the rows that others' rows point to of ids and names."""

from __future__ import annotations

import secrets
from collections.abc import Collection

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
    """End the browsers, requests and links of the accounts `among` (primary keys) that this account reaches now.

    Tells the person's other accounts. Returns the primary keys of those that have left.
    """
    links = linking.hold_links_of(account)
    leaving = [reached for reached in linking.reach(account) if reached.pk in among]
    browser_sessions.sign_out_everywhere(*leaving)
    for leaver in leaving:
        pair_in_chat.cancel(account=leaver)
    linking.end([link for link in links if link.account in leaving], actor=audit.actor(account), method="forgotten")
    return [leaver.pk for leaver in leaving]


@transaction.atomic
def make_nameless(account: PlatformAccount) -> None:
    """Delete the id and names of an account, and of people who have no other account. The log keeps a keyed hash.

    A person who has another account takes that one's name, unless an operator chose the name.
    """
    locks.lock_person(account.pk)
    audit.record(kind="forgotten", actor=audit.actor(account), account=account)
    people = list(UnifiedUser.objects.filter(links__account=account).distinct().order_by("pk"))
    no_id = f"forgotten-{secrets.token_hex(16)}"
    PlatformAccount.objects.filter(pk=account.pk).update(platform_user_id=no_id, display_name="", username="")
    UnifiedUser.objects.filter(preferred=account).update(preferred=None)
    for person in people:
        others = linking.accounts_of(person)
        if not others:
            UnifiedUser.objects.filter(pk=person.pk).update(
                unified_user_id=policy.generated_id(), display_name="", is_name_chosen=False, preferred=None
            )
        elif not person.is_name_chosen:
            UnifiedUser.objects.filter(pk=person.pk).update(display_name=harmless(others[0].display_name))
    for row in (account, *people, *AccountLink.objects.filter(account=account)):
        kind = ContentType.objects.get_for_model(row)
        # The admin's log keeps what a row was called when an operator changed it.
        LogEntry.objects.filter(content_type=kind, object_id=str(row.pk)).update(object_repr="")
