"""What is left of somebody who is forgotten: rows that others' rows point to, without an id or a name."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from identity import audit, browsers, linking, locks, pairing
from identity.models import AccountLink, PlatformAccount, UnifiedUser


def leave(account: PlatformAccount) -> None:
    """End what the account is party to: browsers, requests, its link. The person's other accounts are told."""
    browsers.sign_out_everywhere(account)
    pairing.cancel(account=account)
    if AccountLink.objects.live().filter(account=account).exists():
        linking.leave(account=account)


@transaction.atomic
def make_nameless(account: PlatformAccount) -> None:
    """Take id and names from an account, and from people who have no other. The log keeps a keyed hash."""
    locks.lock_person(account.pk)
    audit.record(kind="forgotten", actor=audit.actor(account), account=account)
    people = list(UnifiedUser.objects.filter(links__account=account).distinct().order_by("pk"))
    nobody = f"forgotten-{secrets.token_hex(16)}"
    PlatformAccount.objects.filter(pk=account.pk).update(platform_user_id=nobody, display_name="", username="")
    UnifiedUser.objects.filter(preferred=account).update(preferred=None)
    for person in people:
        if not AccountLink.objects.live().filter(user=person).exists():
            _make_person_nameless(person)
    _blank_operators_log([account, *people, *AccountLink.objects.filter(account=account)])


def _make_person_nameless(person: UnifiedUser) -> None:
    new_id = f"u-{secrets.token_hex(8)}"
    UnifiedUser.objects.filter(pk=person.pk).update(unified_user_id=new_id, display_name="", preferred=None)


def _blank_operators_log(rows: Iterable[PlatformAccount | UnifiedUser | AccountLink]) -> None:
    """The admin writes down how what it changed was called."""
    for row in rows:
        kind = ContentType.objects.get_for_model(row)
        LogEntry.objects.filter(content_type=kind, object_id=str(row.pk)).update(object_repr="")
