"""What operators do about people, from the admin and from commands.

Each step writes an audit row with the operator's name. None makes a link.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from identity import audit
from identity.flows import link_maintenance, pair_in_chat
from identity.links import locks, lookup
from identity.models import AccountLink, AuditEvent, BotProfile, Pairing, UnifiedUser
from identity.pairing import codes
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.pairing.settings import limits
from identity.resolvers import DatabaseIdentityResolver
from identity.support import platforms as known

AT_ONCE = 500  # people imported or invited together


@dataclass(frozen=True, slots=True)
class NewPerson:
    """A person to add."""

    unified_user_id: str
    display_name: str


def is_pairing_available() -> bool:
    """Whether the resolver reads the links in the database. With another resolver, no account can be paired here."""
    resolver = import_string(settings.BOTOS_RESOLVER)
    return isinstance(resolver, type) and issubclass(resolver, DatabaseIdentityResolver)


# --- People


def add_person(*, person: NewPerson, operator: str) -> UnifiedUser:
    """Create a person. Raises ValueError for an invalid id or name, and for an id that is taken."""
    check_new_person(person)
    try:
        with transaction.atomic():
            made = UnifiedUser.objects.create(
                unified_user_id=person.unified_user_id, display_name=person.display_name.strip(), is_name_chosen=True
            )
            audit.record(kind="person_added", actor=operator, user=made)
    except IntegrityError as error:
        raise ValueError(_("There is already a person with the ID %(id)s.") % {"id": person.unified_user_id}) from error
    return made


def check_new_person(person: NewPerson) -> None:
    """Raise ValueError for an id that `lookup.check_person` refuses, and for a name that cannot be shown as it is."""
    lookup.check_person(person.unified_user_id)
    if len(person.display_name) > 150 or not person.display_name.isprintable():
        raise ValueError(_("A name can have at most 150 characters, without line breaks or invisible characters."))


@transaction.atomic
def rename_person(*, person: UnifiedUser, display_name: str, operator: str) -> None:
    """Change a person's name. Names are labels: no look-up uses them, so this changes no identity."""
    check_new_person(NewPerson(person.unified_user_id, display_name))
    UnifiedUser.objects.filter(pk=person.pk).update(display_name=display_name, is_name_chosen=True)
    audit.record(kind="person_renamed", actor=operator, user=person)


def import_people(*, people: Sequence[NewPerson], operator: str) -> int:
    """Add all people that are missing, or none; existing ones stay as they are. Returns how many were added.

    Needs a constant number of queries. Raises ValueError for more than AT_ONCE, for a person that `check_new_person`
    refuses, and if another operator adds one of them at the same moment.
    """
    _check_number(len(people))
    for person in people:
        check_new_person(person)
    known = known_ids(people)
    new = [
        UnifiedUser(unified_user_id=person.unified_user_id, display_name=person.display_name, is_name_chosen=True)
        for person in people
    ]
    added = [user for user in new if user.unified_user_id not in known]
    try:
        with transaction.atomic():
            UnifiedUser.objects.bulk_create(added)
            AuditEvent.objects.bulk_create(
                AuditEvent(kind="person_imported", actor=operator, unified_user_id=user.unified_user_id)
                for user in added
            )
            audit.record(kind="people_imported", actor=operator, people=len(added))
    except IntegrityError as error:
        raise ValueError(
            _("Two of these people have the same ID, or another operator has just added one of them. Try again.")
        ) from error
    return len(added)


def known_ids(people: Iterable[NewPerson]) -> set[str]:
    """Return those of the people's ids that are taken."""
    ids = [person.unified_user_id for person in people]
    return set(UnifiedUser.objects.filter(unified_user_id__in=ids).values_list("unified_user_id", flat=True))


def _check_number(count: int) -> None:
    if count > AT_ONCE:
        raise ValueError(
            _("%(count)d people are too many: at most %(most)d at a time.") % {"count": count, "most": AT_ONCE}
        )


# --- Invitations


def platforms() -> dict[str, str]:
    """Return the platforms for invitations, with their titles: the described ones, and those of connected bots."""
    names = {*known.described(), *BotProfile.objects.values_list("platform", flat=True)}
    return {name: known.title(name) for name in sorted(names)}


def platforms_left(person: UnifiedUser) -> dict[str, str]:
    """Return the platforms on which the person has no account yet: there is at most one on each."""
    taken = set(AccountLink.objects.live().filter(user=person).values_list("account__platform", flat=True))
    return {name: title for name, title in platforms().items() if name not in taken}


def invite(*, person: UnifiedUser, operator: str, platform: str = "") -> Pairing:
    """Issue an invitation for one account, on `platform` or on any. Raises ValueError if there can be none."""
    if not is_pairing_available():
        raise ValueError(_("Accounts are linked outside this bot (BOTOS_RESOLVER), so you can't invite anyone."))
    if platform and platform not in platforms():
        raise ValueError(_("There is no platform %(name)s here.") % {"name": platform})
    if platform and platform not in platforms_left(person):
        taken = _("%(id)s already has an account on that platform and can have only one on each.")
        raise ValueError(taken % {"id": person.unified_user_id})
    return pair_in_chat.invite(person=person, operator=operator, platform=platform)


@transaction.atomic
def invite_all(*, people: Sequence[UnifiedUser], operator: str, platform: str = "") -> list[Pairing]:
    """Issue an invitation for each, or none at all. Raises ValueError for more than AT_ONCE and as `invite` does."""
    _check_number(len(people))
    pks = {invite(person=person, operator=operator, platform=platform).pk for person in people}
    return list(Pairing.objects.filter(pk__in=pks).select_related("person").order_by("person__unified_user_id"))


@transaction.atomic
def confirm(*, invitation: Pairing, number: str, operator: str) -> Outcome:
    """Try the number that the person read out to the operator.

    Raises ValueError, without counting a try, if it is no number.
    """
    digits = codes.read_number(number)
    if digits is None:
        raise ValueError(_("The number must have six digits."))
    return pair_in_chat.confirm_as_operator(pairing=invitation, number=digits, operator=operator)


def tries_left(invitation: Pairing) -> int:
    """Return how many tries of the number are left, from the database."""
    tries = Pairing.objects.values_list("tries", flat=True).get(pk=invitation.pk)
    return max(0, limits().number_tries - tries)


def withdraw(*, invitation: Pairing, operator: str) -> bool:
    """Withdraw an invitation. False if it had ended, or is none."""
    return pair_in_chat.withdraw(pairing=invitation, operator=operator) == Outcome.CANCELLED


# --- Ends


@transaction.atomic
def suspend(*, person: UnifiedUser, operator: str) -> int:
    """End all links of a person, and all requests that could make a new one. Returns how many links ended."""
    locks.lock_people((), joining=[person.pk])
    invited = pairing_requests.live_invitations(person).count()
    ended = link_maintenance.suspend(user=person, operator=operator)  # withdraws the invitations with the last link
    pairing_requests.withdraw_all(person, actor=operator)
    audit.record(kind="person_suspended", actor=operator, user=person, links=ended, invitations=invited)
    return ended
