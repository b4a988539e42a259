"""The links between accounts and people: made, ended and opened, each with one audit row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from identity import audit, live, notices
from identity.browsers import attachments
from identity.links import locks, lookup
from identity.models import AccountLink, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import requests as pairing_requests
from identity.pairing.settings import limits
from identity.support import clock


@dataclass(frozen=True, slots=True)
class How:
    """How a link was made, and by whom: `pairing` by an account, in its chat or in a browser, or `operator` by one of
    them. `account`: the one in whose chat it was.
    """

    method: str
    actor: str
    account: PlatformAccount | None = None


@transaction.atomic
def link(
    *,
    platform: str,
    platform_user_id: str,
    unified_user_id: str,
    method: str,
    actor: str,
    display_name: str = "",
) -> AccountLink:
    """Make the account this person's from now on. Account and person (then so called) are made if they are missing.

    The same person again changes nothing; another person's link is ended. Returns the live link. Raises ValueError for
    a platform, an id or a unified user id that cannot be.
    """
    account = lookup.account_for(platform=platform, platform_user_id=platform_user_id)
    user = lookup.person_for(unified_user_id=unified_user_id, display_name=display_name)
    owner = locks.lock_people([account.pk], joining=[user.pk]).get(account.pk)
    mine = AccountLink.objects.live().filter(account=account)
    if owner == user.pk:
        return mine.get()
    details = {"ended_link": mine.get().pk} if owner else {}
    before = mine.select_related("user").first()
    if mine.update(ended_at=clock.now()):
        attachments.detach(account=account)
    if before and not accounts_of(before.user):
        pairing_requests.withdraw_all(before.user, actor=actor)
    made = AccountLink.objects.create(account=account, user=user, method=method, actor=actor)
    made.refresh_from_db(fields=["since"])
    audit.record(kind="linked", actor=actor, account=account, user=user, method=method, link=made.pk, **details)
    pairing_requests.refuse_outdated(user)
    return made


@transaction.atomic
def unlink(*, platform: str, platform_user_id: str, actor: str, method: str = "resolver", disown: bool = False) -> bool:
    """Make the account nobody's. False if it was nobody's already.

    `disown` says that the link was not the person's doing: what the account said in it is kept from every agent.
    """
    account = PlatformAccount.objects.filter(platform=platform, platform_user_id=platform_user_id).first()
    owner = locks.lock_person(account.pk) if account else None
    if account is None or owner is None:
        return False
    live_link = AccountLink.objects.live().filter(account=account).select_related("user").get()
    AccountLink.objects.filter(pk=live_link.pk).update(ended_at=clock.now(), disowned=disown)
    attachments.detach(account=account)
    _announce([account, *accounts_of(live_link.user)])
    audit.record(
        kind="unlinked",
        actor=actor,
        account=account,
        user=live_link.user,
        method=method,
        link=live_link.pk,
        disowned=disown,
    )
    if not accounts_of(live_link.user):
        pairing_requests.withdraw_all(live_link.user, actor=actor)
    return True


@transaction.atomic
def share_past(*, account: PlatformAccount, actor: str) -> bool:
    """Let the person's other accounts read what this one said before it was linked.

    False, and no audit row, if it does already or is nobody's.
    """
    locks.lock_person(account.pk)
    closed = AccountLink.objects.live().filter(account=account, shares_past=False).select_related("user").first()
    if closed is None:
        return False
    AccountLink.objects.filter(pk=closed.pk).update(shares_past=True)
    audit.record(kind="past_shared", actor=actor, account=account, user=closed.user, link=closed.pk)
    _announce(accounts_of(closed.user))
    for one in accounts_of(closed.user):
        notices.tell(one, Template.PAST_SHARED, link=closed.pk)
    return True


# --- What people do with their links. A page, command or button names a link; the rules are here.


def join(*, account: PlatformAccount, pairing: Pairing, user: UnifiedUser, since: datetime, how: How) -> AccountLink:
    """The link that a finished handshake makes. The caller holds the account and the people, and has asked policy.

    An account that was alone with another person leaves that one. It stays in its browsers, as one that was nobody's.
    """
    _leave_alone(account, since, how)
    made = AccountLink.objects.create(
        account=account,
        user=user,
        since=since,
        pairing=pairing,
        method=how.method,
        actor=how.actor,
        remind_at=since + timedelta(seconds=limits().first_reminder_seconds),
    )
    audit.record(kind="linked", actor=how.actor, account=account, user=user, method=how.method, link=made.pk)
    _announce(accounts_of(user))
    pairing_requests.refuse_outdated(user)
    return made


def _leave_alone(account: PlatformAccount, since: datetime, how: How) -> None:
    before = AccountLink.objects.live().filter(account=account).select_related("user").first()
    if before is None:
        return
    AccountLink.objects.filter(pk=before.pk).update(ended_at=since, remind_at=None)
    audit.record(kind="unlinked", actor=how.actor, account=account, user=before.user, method="joined", link=before.pk)
    pairing_requests.withdraw_all(before.user, actor=how.actor)


def close_past(user: UnifiedUser) -> None:
    """Earlier messages stay separate for an account that was alone: it opened them to others, who have left since."""
    AccountLink.objects.live().filter(user=user, shares_past=True).update(shares_past=False)


@transaction.atomic
def leave(*, account: PlatformAccount, platform: str = "") -> bool:
    """`/unlink`: take this account out, or the one that the person has on `platform`. False if there is none."""
    wanted = Q(account__platform=platform) if platform else Q(account=account)
    return _end_some(account, wanted, method="unlink")


@transaction.atomic
def undo(*, account: PlatformAccount, pairing_id: UUID) -> bool:
    """Take back what one handshake linked."""
    return _end_some(account, Q(pairing=pairing_id), method="undo")


def repudiate(held: Sequence[AccountLink], *, account: PlatformAccount, pairing_ids: Collection[UUID]) -> bool:
    """The same as somebody else's doing, with what was said meanwhile. `held`: the links of the person, as
    `hold_links_of` gives them. What has been so for long is taken back and no more: months are not blanked by a button.
    """
    return _end_those(held, account, Q(pairing__in=pairing_ids), method="undo", disowns=lambda _, link: _is_young(link))


@transaction.atomic
def disown(*, account: PlatformAccount, link_id: int | None = None) -> bool:
    """ "That wasn't me": end a link of the person, the newest other one if none is named, and keep from every agent
    what anybody said while it lived. Also one that has ended lately: a stranger may have left, or taken this one out.
    Whoever was taken out takes back a newcomer's mistake, and not what others have said in months.
    """
    held = hold_links_of(account)  # once: a second time others may have come, before these in the order of locks
    young = Q(since__gt=clock.seconds_from_now(-limits().disown_seconds))
    mine = _live_or_lately(Q(account=account) & (Q(ended_at=None) | young))
    own = mine.order_by(F("ended_at").desc(nulls_first=True)).first()
    if own and own.ended_at is None:
        others = _live_or_lately(Q(user=own.user_id) & ~Q(account=account))
        named = others.filter(pk=link_id) if link_id else others
        meant = named.filter(Q(ended_at=None) | Q(ended_at__gt=own.since)).order_by("-since", "-pk").first()
    else:
        meant = own
    if own and meant and meant.ended_at and may_end(own, meant) and _may_disown(own, meant):
        return _disown_ended(meant, account)
    wanted = Q(pk=link_id) if link_id else ~Q(account=account)
    return _end_those(held, account, wanted, method="unlink", newest_only=True, disowns=_may_disown)


@transaction.atomic
def take_out(*, account: PlatformAccount, link_id: int) -> bool:
    """The same for a link that is named, as a page does it."""
    return _end_some(account, Q(pk=link_id), method="unlink")


@transaction.atomic
def prefer(*, account: PlatformAccount, preferred: PlatformAccount | None) -> bool:
    """Say which of the person's accounts is told things that nobody asked for; None for the one used last.

    False if the account is nobody's or too new to decide for others, or the preferred one not the person's.
    """
    theirs = {link.account_id: link for link in hold_links_of(account)}
    own = theirs.get(account.pk)
    if own is None or not all(may_end(own, link) for link in theirs.values()):
        return False
    if preferred and preferred.pk not in theirs:
        return False
    UnifiedUser.objects.filter(pk=own.user_id).update(preferred=preferred)
    audit.record(kind="preferred", actor=audit.actor(account), account=preferred)
    _announce([account])
    return True


def _live_or_lately(whose: Q) -> QuerySet[AccountLink]:
    lately = Q(disowned=False, ended_at__gt=clock.seconds_from_now(-limits().disown_seconds))
    return AccountLink.objects.filter(whose, Q(ended_at=None) | lately).select_related("account", "user")


def _disown_ended(link: AccountLink, account: PlatformAccount) -> bool:
    AccountLink.objects.filter(pk=link.pk, ended_at__isnull=False).update(disowned=True)
    audit.record(kind="disowned", actor=audit.actor(account), account=link.account, user=link.user, link=link.pk)
    told = {one.pk: one for one in (account, *accounts_of(link.user))}
    _announce(told.values())
    for one in told.values():
        notices.tell(one, Template.DISOWNED)
    return True


def _end_some(account: PlatformAccount, wanted: Q, *, method: str) -> bool:
    """End those links of the account's person that are wanted and that the account may end."""
    return _end_those(hold_links_of(account), account, wanted, method=method)


def _end_those(
    theirs: Sequence[AccountLink],
    account: PlatformAccount,
    wanted: Q,
    *,
    method: str,
    newest_only: bool = False,
    disowns: Callable[[AccountLink, AccountLink], bool] = lambda own, link: False,
) -> bool:
    """`disowns` says, of the account's own link and one that ends, whether it ends as a mistake."""
    own = next((link for link in theirs if link.account_id == account.pk), None)
    named = set(AccountLink.objects.filter(wanted, pk__in=[link.pk for link in theirs]).values_list("pk", flat=True))
    asked = [link for link in theirs if link.pk in named][: 1 if newest_only else None]
    ended = [link for link in asked if own and may_end(own, link)]
    disowned = {link.pk for link in ended if own and disowns(own, link)}
    end(ended, actor=audit.actor(account), method=method, disowned=disowned)
    if not ended:
        notices.tell(account, Template.TOO_NEW if asked else Template.NOTHING_THERE)
    return bool(ended)


def may_end(own: AccountLink, other: AccountLink) -> bool:
    """One's own link always, and any that is not older than it; older ones once the own one has lived for a day."""
    return other.since >= own.since or is_established(own)


def _may_disown(own: AccountLink, other: AccountLink) -> bool:
    """Whether one account may say of another's link that it was a mistake: a newcomer not of one that is old."""
    return other.since >= own.since or _is_young(other)


def _is_young(link: AccountLink) -> bool:
    return link.since > clock.read() - timedelta(seconds=limits().disown_seconds)


def is_established(own: AccountLink) -> bool:
    """Whether a link has lived for a day. A newer one may not take away, carry off or delete what is others'."""
    return own.since + timedelta(seconds=limits().new_link_seconds) <= clock.read()


def grown(links: QuerySet[AccountLink]) -> QuerySet[AccountLink]:
    """Those of them that have."""
    return links.filter(since__lte=clock.seconds_from_now(-limits().new_link_seconds))


def may_put_behind(own: AccountLink, other: AccountLink) -> bool:
    """Whether one account may make an agent forget what another said. In one handshake two strangers are linked at the
    same moment, and nothing gives back what was put behind.
    """
    return other.pk == own.pk or other.since > own.since or is_established(own)


def reach(account: PlatformAccount) -> list[PlatformAccount]:
    """What is forgotten with an account: those of its person whose links have lived for a day, as its own must have;
    else it alone. Whoever has just been linked is not to lose what was said before that, either.
    """
    live_ones = AccountLink.objects.live()
    theirs = live_ones.filter(user__in=live_ones.filter(account=account).values("user")).select_related("account")
    grown = [link.account for link in theirs.order_by("since", "pk") if is_established(link)]
    return grown if account in grown else [account]


def hold_links_of(account: PlatformAccount) -> list[AccountLink]:
    """The linked links of the account's person, newest first, with all their rows held until the transaction ends."""
    linked = AccountLink.objects.live()
    user_id = linked.filter(account=account).values_list("user_id", flat=True).first()
    theirs = linked.filter(user=user_id) if user_id else linked.filter(account=account)
    locks.lock_people({account.pk, *theirs.values_list("account_id", flat=True)})
    return list(theirs.select_related("account", "user").order_by("-since", "-pk"))


def end(links: Collection[AccountLink], *, actor: str, method: str, disowned: Collection[int] = ()) -> None:
    """End live links of a person, those with the ids `disowned` as mistakes, and tell everybody. The caller holds them,
    and has asked whether that may be.
    """
    attachments.hold_those(account__in=[link.account_id for link in links])
    for link in links:
        is_mistake = link.pk in disowned
        end_one(link, actor=actor, method="disowned" if is_mistake else method, disowned=is_mistake)


def end_one(link: AccountLink, *, actor: str, method: str, disowned: bool = False, still: Q | None = None) -> bool:
    """End one live link, and tell all accounts of the person, also the one that leaves. False if it had ended, or is no
    longer what it must be `still`.
    """
    mine = AccountLink.objects.live().filter(still or Q(), pk=link.pk)
    if not mine.update(ended_at=clock.now(), disowned=disowned, remind_at=None):
        return False
    audit.record(kind="unlinked", actor=actor, account=link.account, user=link.user, method=method, link=link.pk)
    attachments.detach(account=link.account)
    others = accounts_of(link.user)
    _announce([link.account, *others])
    for one in (link.account, *others):
        notices.tell(one, Template.UNLINKED, link=link.pk)
    if not others:  # invitations were to be finished in a chat of the person's, and must not fall to operators
        pairing_requests.withdraw_all(link.user, actor=actor)
    return True


def _announce(accounts: Iterable[PlatformAccount]) -> None:
    live.announce(live.topics(accounts=[one.pk for one in accounts]), "links")


def accounts_of(user: UnifiedUser) -> list[PlatformAccount]:
    """All accounts that are linked to a person now, in the order in which they came."""
    theirs = AccountLink.objects.live().filter(user=user).select_related("account").order_by("since", "pk")
    return [link.account for link in theirs]
