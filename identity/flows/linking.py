"""Links between accounts and people: make them, end them, open their past. Each change writes one audit row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

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
    """How a link is made: `method` is `pairing` (in a chat or a browser) or `operator`, `actor` is who does it, and
    `account` is the one in whose chat it happens, if it happens in a chat.
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
    """Link the account to the person and return the live link. A link to another person ends.

    Creates the account and the person (with `display_name`) if they are missing. Changes nothing if the account is
    this person's already. Raises ValueError for an invalid platform, id or unified user id.
    """
    account = lookup.account_for(platform=platform, platform_user_id=platform_user_id)
    user = lookup.person_for(unified_user_id=unified_user_id, display_name=display_name)
    owner = locks.lock_people([account.pk], joining=[user.pk]).get(account.pk)
    live_links = AccountLink.objects.live().filter(account=account)
    before = live_links.select_related("user").first()
    if before and owner == user.pk:
        return before
    details = {"ended_link": before.pk} if before else {}
    if live_links.update(ended_at=clock.now()):
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
    """End the account's link. False if it has none.

    With `disown` the link counts as a mistake: what the account said in it is hidden from every agent.
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

    False, without an audit row, if they can already or if the account has no link.
    """
    locks.lock_person(account.pk)
    closed = AccountLink.objects.live().filter(account=account, shares_past=False).select_related("user").first()
    if closed is None:
        return False
    AccountLink.objects.filter(pk=closed.pk).update(shares_past=True)
    audit.record(kind="past_shared", actor=actor, account=account, user=closed.user, link=closed.pk)
    _announce(accounts_of(closed.user))
    for other in accounts_of(closed.user):
        notices.tell(other, Template.PAST_SHARED, link=closed.pk)
    return True


# --- What people do with their links


def join(*, account: PlatformAccount, pairing: Pairing, user: UnifiedUser, since: datetime, how: How) -> AccountLink:
    """Make the link of a finished handshake. The caller holds the account and the people, and has asked policy.

    An account that was the only one of another person leaves that person. It stays attached to its browsers.
    """
    before = AccountLink.objects.live().filter(account=account).select_related("user").first()
    if before:
        AccountLink.objects.filter(pk=before.pk).update(ended_at=since, remind_at=None)
        audit.record(
            kind="unlinked", actor=how.actor, account=account, user=before.user, method="joined", link=before.pk
        )
        pairing_requests.withdraw_all(before.user, actor=how.actor)
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


def close_past(user: UnifiedUser) -> None:
    """Stop sharing the past of a person's only account: it shared the past with accounts that have left since."""
    AccountLink.objects.live().filter(user=user, shares_past=True).update(shares_past=False)


@transaction.atomic
def leave(*, account: PlatformAccount, platform: str = "") -> bool:
    """`/unlink`: take this account out, or the one that the person has on `platform`. False if there is none."""
    links = hold_links_of(account)
    wanted = [link for link in links if (link.account.platform == platform if platform else link.account == account)]
    return _end_permitted(account, links, wanted, method="unlink")


@transaction.atomic
def undo(*, account: PlatformAccount, pairing_id: UUID) -> bool:
    """Take back what one handshake linked. False if nothing ended."""
    links = hold_links_of(account)
    return _end_permitted(account, links, [link for link in links if link.pairing_id == pairing_id], method="undo")


def repudiate(links: Sequence[AccountLink], *, account: PlatformAccount, pairing_ids: Collection[UUID]) -> bool:
    """Take back what these handshakes linked, as someone else's doing. False if nothing ended.

    `links`: the live links of the account's person, as `hold_links_of` returns them. Recent links are disowned, older
    ones only end: a button must not hide months of messages.
    """
    wanted = [link for link in links if link.pairing_id in pairing_ids]
    return _end_permitted(account, links, wanted, method="undo", mistakes=[link for link in wanted if _is_recent(link)])


@transaction.atomic
def disown(*, account: PlatformAccount, link_id: int | None = None) -> bool:
    """ "That wasn't me": end another account's link of the person, and hide its messages from every agent.

    `link_id` names the link (also the account's own); without it the newest one of the others is meant. A link that
    has ended lately counts: a stranger may have left, or taken this account out. An account that was taken out within
    days of its own link disowns that link, and not what others have said in months. False if nothing was disowned.
    """
    links = hold_links_of(
        account
    )  # once: at a second call others may have come, which the lock order puts before these
    lately = clock.seconds_from_now(-limits().disown_seconds)
    ended_lately = AccountLink.objects.filter(disowned=False, ended_at__gt=lately).select_related("account", "user")
    own = next((link for link in links if link.account == account), None)
    if own is None:
        last = ended_lately.filter(account=account, since__gt=lately).order_by("-ended_at").first()
        return _disown_ended(last, account) if last else _end_permitted(account, links, [], method="unlink")
    wanted = [link for link in links if (link.pk == link_id if link_id else link != own)][:1]
    left = ended_lately.filter(user=own.user, ended_at__gt=own.since).exclude(account=account)
    ended = (left.filter(pk=link_id) if link_id else left).order_by("-since", "-pk").first()
    is_newest = ended and all((ended.since, ended.pk) > (link.since, link.pk) for link in wanted)
    if ended and is_newest and may_end(own, ended) and _may_disown(own, ended):
        return _disown_ended(ended, account)
    mistakes = [link for link in wanted if _may_disown(own, link)]
    return _end_permitted(account, links, wanted, method="unlink", mistakes=mistakes)


@transaction.atomic
def take_out(*, account: PlatformAccount, link_id: int) -> bool:
    """End the link with this primary key, if it is the person's. False if nothing ended."""
    links = hold_links_of(account)
    return _end_permitted(account, links, [link for link in links if link.pk == link_id], method="unlink")


@transaction.atomic
def prefer(*, account: PlatformAccount, preferred: PlatformAccount | None) -> bool:
    """Choose the account of the person that receives unrequested messages; None means the one used last.

    False if the account has no link, if its link is too new to decide for others, or if `preferred` is someone else's.
    """
    links = {link.account_id: link for link in hold_links_of(account)}
    own = links.get(account.pk)
    if own is None or not all(may_end(own, link) for link in links.values()):
        return False
    if preferred and preferred.pk not in links:
        return False
    UnifiedUser.objects.filter(pk=own.user_id).update(preferred=preferred)
    audit.record(kind="preferred", actor=audit.actor(account), account=preferred)
    _announce([account])
    return True


def _disown_ended(link: AccountLink, account: PlatformAccount) -> bool:
    AccountLink.objects.filter(pk=link.pk).update(disowned=True)
    audit.record(kind="disowned", actor=audit.actor(account), account=link.account, user=link.user, link=link.pk)
    recipients = {recipient.pk: recipient for recipient in (account, *accounts_of(link.user))}
    _announce(recipients.values())
    for recipient in recipients.values():
        notices.tell(recipient, Template.DISOWNED)
    return True


def _end_permitted(
    account: PlatformAccount,
    links: Sequence[AccountLink],
    wanted: Sequence[AccountLink],
    *,
    method: str,
    mistakes: Collection[AccountLink] = (),
) -> bool:
    """End those of `wanted` that the account may end; tell it why if that is none. False if nothing ended.

    `links`: the live links of the account's person, which the caller holds. What ends of `mistakes` is disowned.
    """
    own = next((link for link in links if link.account == account), None)
    ending = [link for link in wanted if own and may_end(own, link)]
    disowned = [link.pk for link in ending if link in mistakes]
    end(ending, actor=audit.actor(account), method=method, disowned=disowned)
    if not ending:
        notices.tell(account, Template.TOO_NEW if wanted else Template.NOTHING_THERE)
    return bool(ending)


def may_end(own: AccountLink, other: AccountLink) -> bool:
    """Whether one account may end another's link: if that link is not older than its own, or its own is established."""
    return other.since >= own.since or is_established(own)


def _may_disown(own: AccountLink, other: AccountLink) -> bool:
    """Whether one account may disown another's link: if that link is not older than its own, or still recent."""
    return other.since >= own.since or _is_recent(other)


def _is_recent(link: AccountLink) -> bool:
    return link.since > clock.read() - timedelta(seconds=limits().disown_seconds)


def is_established(own: AccountLink) -> bool:
    """Whether a link is a day old. A newer one may not remove other accounts or delete what they said."""
    return own.since + timedelta(seconds=limits().new_link_seconds) <= clock.read()


def established(links: QuerySet[AccountLink]) -> QuerySet[AccountLink]:
    """The established ones of these links."""
    return links.filter(since__lte=clock.seconds_from_now(-limits().new_link_seconds))


def may_reset(own: AccountLink, other: AccountLink) -> bool:
    """Whether one account may reset what an agent remembers of another. Links of the same age may not: one handshake
    may link two strangers, and a reset cannot be undone.
    """
    return other.pk == own.pk or other.since > own.since or is_established(own)


def reach(account: PlatformAccount) -> list[PlatformAccount]:
    """Return the accounts that are forgotten together with this one, oldest link first.

    They are the person's accounts with established links, if its own link is established; else it alone. So an account
    that was linked by mistake neither deletes the others nor is deleted with them.
    """
    live_links = AccountLink.objects.live()
    links = live_links.filter(user__in=live_links.filter(account=account).values("user")).select_related("account")
    accounts = [link.account for link in links.order_by("since", "pk") if is_established(link)]
    return accounts if account in accounts else [account]


def hold_links_of(account: PlatformAccount) -> list[AccountLink]:
    """Lock and return the live links of the account's person, newest first."""
    live_links = AccountLink.objects.live()
    user_id = live_links.filter(account=account).values_list("user_id", flat=True).first()
    links = live_links.filter(user=user_id) if user_id else live_links.filter(account=account)
    locks.lock_people({account.pk, *links.values_list("account_id", flat=True)})
    return list(links.select_related("account", "user").order_by("-since", "-pk"))


def end(links: Collection[AccountLink], *, actor: str, method: str, disowned: Collection[int] = ()) -> None:
    """End live links of a person and tell all its accounts. Links whose primary keys are in `disowned` are disowned.

    The caller holds the links and has checked that they may be ended.
    """
    attachments.hold_attachments(account__in=[link.account_id for link in links])
    for link in links:
        is_mistake = link.pk in disowned
        end_one(link, actor=actor, method="disowned" if is_mistake else method, disowned=is_mistake)


def end_one(link: AccountLink, *, actor: str, method: str, disowned: bool = False, still: Q | None = None) -> bool:
    """End one live link and tell all accounts of the person, the one that leaves included.

    False if the link has ended meanwhile or no longer matches `still`.
    """
    matching = AccountLink.objects.live().filter(still or Q(), pk=link.pk)
    if not matching.update(ended_at=clock.now(), disowned=disowned, remind_at=None):
        return False
    audit.record(kind="unlinked", actor=actor, account=link.account, user=link.user, method=method, link=link.pk)
    attachments.detach(account=link.account)
    others = accounts_of(link.user)
    _announce([link.account, *others])
    for account in (link.account, *others):
        notices.tell(account, Template.UNLINKED, link=link.pk)
    if not others:  # an invitation is finished in a chat of the person; without a chat an operator could finish it
        pairing_requests.withdraw_all(link.user, actor=actor)
    return True


def _announce(accounts: Iterable[PlatformAccount]) -> None:
    live.announce(live.topics(accounts=[account.pk for account in accounts]), "links")


def accounts_of(user: UnifiedUser) -> list[PlatformAccount]:
    """Return the accounts that are linked to a person now, oldest link first."""
    links = AccountLink.objects.live().filter(user=user).select_related("account").order_by("since", "pk")
    return [link.account for link in links]
