"""After the handshake: undo, unlink, "wasn't me", share, reminders, silence, and what a new link may not do yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from identity import audit, wording
from identity.flows import link_maintenance, linking, pair_in_chat
from identity.links import locks
from identity.models import AccountLink, AuditEvent, Pairing, PlatformAccount
from identity.notices import Template
from identity.pairing.requests import Outcome
from identity.support import clock
from tests.identity import pairs
from tests.identity.pairs import Told, account, are_one, later, linked, live_link, owner

pytestmark = pytest.mark.django_db

DAY = 86_400


@pytest.fixture(autouse=True)
def told() -> Iterator[Told]:
    with pairs.listening() as told:
        yield told


@pytest.fixture
def telegram() -> PlatformAccount:
    return account("alice")


@pytest.fixture
def discord() -> PlatformAccount:
    return account("alice", "discord")


@pytest.fixture
def slack() -> PlatformAccount:
    return account("alice", "slack")


def links() -> list[str]:
    live = AccountLink.objects.live().order_by("account__platform")
    return list(live.values_list("account__platform", flat=True))


@pytest.mark.parametrize("who", ["telegram", "discord"])
def test_undo_takes_back_what_one_handshake_linked(told: Told, who: str) -> None:
    request = linked(account("alice"), account("alice", "discord"))

    assert linking.undo(account=account("alice", who), pairing_id=request.pk)

    assert links() == []
    assert told.text(account("alice")) == "This account is no longer linked. Each app keeps its own messages."
    assert AuditEvent.objects.filter(kind="unlinked", details__method="undo").count() == 2


@pytest.mark.parametrize("who", ["telegram", "slack"])
def test_undo_of_a_third_account_leaves_the_first_two(who: str) -> None:
    telegram, discord, slack = (account("alice", one) for one in ("telegram", "discord", "slack"))
    linked(telegram, discord)
    request = linked(telegram, slack)

    assert linking.undo(account=account("alice", who), pairing_id=request.pk)

    assert (links(), are_one(telegram, discord)) == (["discord", "telegram"], True)


def test_undo_is_for_members(told: Told, telegram: PlatformAccount, discord: PlatformAccount) -> None:
    request = linked(telegram, discord)
    mallory = account("mallory", "slack")

    assert not linking.undo(account=mallory, pairing_id=request.pk)
    assert told.to(mallory) == [Template.NOTHING_THERE]
    assert links() == ["discord", "telegram"]


def test_a_new_account_may_not_undo_the_handshake_before(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    first = linked(telegram, discord)
    linked(telegram, slack)

    assert not linking.undo(account=slack, pairing_id=first.pk)
    assert told.text(slack) == (
        "This account was linked less than a day ago, so it can't unlink older ones yet. Use one of those instead."
    )


def test_unlink_takes_out_the_own_account(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)

    assert linking.leave(account=discord)

    assert links() == ["telegram"]
    assert live_link(telegram).remind_at is not None
    assert AccountLink.objects.get(account=discord).remind_at is None


def test_unlink_tells_everybody(told: Told, telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)
    told.said.clear()

    linking.leave(account=discord)

    assert told.text(discord) == "This account is no longer linked. Each app keeps its own messages."
    assert told.text(telegram) == 'Discord account "Alice" (alice, ID ..cord) no longer shares this conversation.'


def test_unlink_of_nothing_says_so(told: Told, telegram: PlatformAccount, discord: PlatformAccount) -> None:
    assert not linking.leave(account=telegram)
    linked(telegram, discord)
    assert not linking.leave(account=telegram, platform="slack")

    assert told.to(telegram).count(Template.NOTHING_THERE) == 2


def test_a_new_link_takes_out_older_ones_after_a_day_only(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(3600, AccountLink.objects.all())
    linked(telegram, slack)
    newest = AccountLink.objects.filter(account=slack)

    assert not linking.leave(account=slack, platform="telegram")
    assert told.to(slack)[-1] == Template.TOO_NEW
    later(DAY - 60, AccountLink.objects.all())
    assert not linking.leave(account=slack, platform="telegram")
    assert newest.filter(ended_at=None).exists()
    later(61, AccountLink.objects.all())
    assert linking.leave(account=slack, platform="telegram")


def test_an_older_link_takes_out_newer_ones_at_once(
    telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(3600, AccountLink.objects.all())
    linked(discord, slack)

    assert linking.leave(account=telegram, platform="slack")
    assert linking.leave(account=telegram, platform="discord")  # of the same handshake: not older than its own


def test_it_takes_out_nobody_elses_account(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)
    bob, bob_slack = account("bob"), account("bob", "slack")
    linked(bob, bob_slack)
    theirs = live_link(bob_slack)

    assert not linking.leave(account=telegram, platform="slack")
    assert not linking.disown(account=telegram, link_id=theirs.pk)

    assert are_one(bob, bob_slack)


def test_wasnt_me_disowns_the_named_link(told: Told, telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)
    theirs = live_link(discord)

    assert linking.disown(account=telegram, link_id=theirs.pk)

    theirs.refresh_from_db()
    assert (theirs.disowned, owner(discord)) == (True, None)
    assert links() == ["telegram"]
    assert not live_link(telegram).disowned
    assert AuditEvent.objects.latest("pk").details["method"] == "disowned"


def test_wasnt_me_without_a_name_means_the_newest_other_one(
    telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(60, AccountLink.objects.all())
    linked(telegram, slack)

    assert linking.disown(account=telegram)

    assert (links(), AccountLink.objects.get(disowned=True).account) == (["discord", "telegram"], slack)


def test_a_new_account_cannot_disown_older_ones(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(60, AccountLink.objects.all())
    linked(telegram, slack)

    assert not linking.disown(account=slack)
    assert not linking.disown(account=slack, link_id=live_link(telegram).pk)
    assert told.to(slack)[-2:] == [Template.TOO_NEW] * 2
    assert links() == ["discord", "slack", "telegram"]


def test_share_opens_the_own_past_alone_and_tells_all(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    told.said.clear()

    assert linking.share_past(account=telegram, actor="x")
    assert not linking.share_past(account=telegram, actor="x")

    assert (live_link(telegram).shares_past, live_link(discord).shares_past) == (True, False)
    assert told.text(telegram) == "Your other apps now share your earlier messages from this one."
    assert told.text(discord) == (
        'Telegram account "Alice" (@alice, ID ..gram) now shares its earlier messages here too.'
    )


def test_sharing_ends_with_the_link(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)
    linking.share_past(account=telegram, actor="x")
    linking.leave(account=telegram)
    Pairing.objects.all().delete()
    linked(telegram, discord)

    assert not live_link(telegram).shares_past


def test_it_reminds_after_a_day_and_after_a_week(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    told.said.clear()
    reminded = []
    for days in (0.99, 0.02, 5.97, 0.03, 30):
        later(days * DAY, AccountLink.objects.all())
        reminded.append(link_maintenance.remind())

    assert reminded == [0, 2, 0, 2, 0]
    assert told.to(telegram) == told.to(discord) == [Template.REMINDED] * 4


def test_it_reminds_of_no_ended_link(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)
    linking.leave(account=telegram)
    linking.leave(account=discord)
    later(DAY + 1, AccountLink.objects.all())

    assert link_maintenance.remind() == 0


def test_it_says_in_a_reminder_whom_it_is_about(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(DAY + 1, AccountLink.objects.filter(account=discord))
    link_maintenance.remind()

    assert told.text(telegram) == (
        'A reminder: Discord account "Alice" (alice, ID ..cord) shares this conversation. '
        "If you didn't link it, say so."
    )


@pytest.mark.parametrize(("silent", "linked_for", "ended"), [(180, 180, 1), (179, 200, 0), (200, 179, 0)])
def test_it_ends_the_link_of_an_account_that_is_silent_for_long(
    telegram: PlatformAccount, discord: PlatformAccount, silent: int, linked_for: int, ended: int
) -> None:
    linked(telegram, discord)
    later(linked_for * DAY + 1, AccountLink.objects.all())
    seen = PlatformAccount.objects.filter(pk=discord.pk)
    seen.update(seen_at=F("seen_at") - timedelta(days=silent, seconds=1))

    assert link_maintenance.suspend_silent() == ended

    assert AuditEvent.objects.filter(kind="unlinked", actor="system", details__method="silent").count() == ended
    assert owner(telegram) is not None


def test_disowning_a_link_that_has_ended_is_written_down(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)
    ended = live_link(discord)
    linking.leave(account=discord)

    assert linking.disown(account=telegram)

    event = AuditEvent.objects.get(kind="disowned")
    assert (event.actor, event.details) == (audit.actor(telegram), {"link": ended.pk})


def test_it_puts_off_the_look_at_links_that_are_due_and_at_no_others(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    AccountLink.objects.filter(account=telegram).update(look_at=clock.seconds_from_now(400 * DAY))
    before = live_link(telegram).look_at

    assert link_maintenance.end_silent() == 1

    assert live_link(telegram).look_at == before
    assert live_link(discord).look_at is not None


def test_it_ends_the_link_of_an_account_that_is_gone(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    linked(telegram, discord)

    assert link_maintenance.account_is_gone(account=discord)
    assert not link_maintenance.account_is_gone(account=discord)

    assert links() == ["telegram"]
    assert AuditEvent.objects.latest("pk").details["method"] == "gone"


ENDS: dict[str, Callable[[PlatformAccount], object]] = {
    "suspended": lambda alice: link_maintenance.suspend(user=live_link(alice).user, operator="ann"),
    "revoked": lambda alice: link_maintenance.revoke(link=live_link(alice), operator="ann"),
    "gone": lambda alice: link_maintenance.account_is_gone(account=alice),
    "silent": lambda alice: link_maintenance.suspend_silent(),
}


@pytest.mark.parametrize("side", ["initiator", "responder"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_an_account_that_was_taken_out_finishes_nothing_that_it_had_begun(
    told: Told, telegram: PlatformAccount, end: Callable[[PlatformAccount], object], side: str
) -> None:
    pairs.person("alice", telegram)
    other = account("mallory", "slack")
    request = pairs.claimed(other, telegram) if side == "initiator" else pairs.claimed(telegram, other)
    later(200 * DAY, AccountLink.objects.all())
    PlatformAccount.objects.filter(pk=telegram.pk).update(seen_at=clock.EPOCH)

    end(telegram)

    request.refresh_from_db()
    assert (request.state, request.strike) == ("cancelled", None)
    assert Template.CANCELLED in told.to(other)
    assert pair_in_chat.confirm(account=request.initiator or other, number=pairs.number(request)) == Outcome.NOTHING
    assert (owner(telegram), owner(other)) == (None, None)


def test_an_account_that_is_gone_leaves_no_code_behind(telegram: PlatformAccount) -> None:
    request = pairs.offered(telegram)

    assert not link_maintenance.account_is_gone(account=telegram)
    assert pairs.state(request) == "cancelled"


def test_it_tells_the_initiator_of_all_accounts_of_the_responders_person(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(discord, account("alice", "slack"))
    pairs.claimed(discord, telegram)

    assert told.text(telegram) == (
        'Discord account "Alice" (alice, ID ..cord), Slack account "Alice" (alice, ID ..lack) used your code. '
        "Yours? Type the 6-digit number it shows."
    )


def test_of_several_that_remind_at_once_one_tells(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(DAY + 1, AccountLink.objects.filter(account=discord))
    seen_by_two = [AccountLink.objects.select_related("user").get(account=discord) for _ in range(2)]
    told.said.clear()

    assert [link_maintenance._remind_of(link) for link in seen_by_two] == [True, False]
    assert told.to(telegram) == told.to(discord) == [Template.REMINDED]


def test_it_reminds_of_no_link_that_a_program_has_ended(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    for one in (telegram, discord):
        linking.unlink(platform=one.platform, platform_user_id=one.platform_user_id, actor="program")
    later(DAY + 1, AccountLink.objects.all())
    told.said.clear()

    assert (link_maintenance.remind(), told.said) == (0, [])


def test_a_notice_about_a_link_that_has_ended_has_no_button(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    about = {"link": live_link(discord).pk}
    assert wording.render(Template.REMINDED, telegram, about).buttons != ()
    linking.leave(account=discord)

    assert wording.render(Template.REMINDED, telegram, about).buttons == ()


def test_a_newcomer_disowns_nothing_that_was_there_for_long(
    telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(7 * DAY + 60, AccountLink.objects.all())
    linked(telegram, slack)
    later(DAY, AccountLink.objects.all())

    assert linking.disown(account=slack, link_id=live_link(discord).pk)

    ended = AccountLink.objects.get(account=discord)
    assert (ended.ended_at is None, ended.disowned) == (False, False)
    assert not linking.disown(account=slack, link_id=ended.pk)
    ended.refresh_from_db()
    assert not ended.disowned


def test_whoever_was_there_disowns_a_newcomer_however_late(
    telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    linked(telegram, slack)
    later(30 * DAY, AccountLink.objects.all())
    wrong = live_link(slack)

    assert linking.disown(account=discord, link_id=wrong.pk)

    wrong.refresh_from_db()
    assert wrong.disowned


# --- What a stranger has ended before one could


def test_it_disowns_a_link_that_the_stranger_has_ended(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    wrong = live_link(discord)
    linking.leave(account=discord)
    [button] = wording.render(Template.UNLINKED, telegram, {"link": wrong.pk}).buttons
    told.said.clear()

    assert button.command == f"/wasntme {wrong.pk}"
    assert linking.disown(account=telegram, link_id=wrong.pk)

    wrong.refresh_from_db()
    assert wrong.disowned
    assert told.to(telegram) == [Template.DISOWNED]
    assert wording.render(Template.UNLINKED, telegram, {"link": wrong.pk}).buttons == ()
    assert not linking.disown(account=telegram, link_id=wrong.pk)


def test_it_disowns_ones_own_link_that_the_stranger_has_ended(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    later(7 * DAY - 60, AccountLink.objects.all())
    linking.leave(account=discord, platform="telegram")
    told.said.clear()

    assert linking.disown(account=telegram)
    assert AccountLink.objects.get(account=telegram).disowned
    assert live_link(discord).ended_at is None
    assert told.to(telegram) == told.to(discord) == [Template.DISOWNED]


@pytest.mark.parametrize("is_named", [True, False])
def test_it_disowns_no_ended_link_of_ones_own_that_was_there_for_long(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount, is_named: bool
) -> None:
    linked(telegram, discord)
    later(7 * DAY, AccountLink.objects.all())
    own = live_link(telegram)
    linking.leave(account=discord, platform="telegram")
    told.said.clear()

    assert not linking.disown(account=telegram, link_id=own.pk if is_named else None)
    assert not AccountLink.objects.filter(disowned=True).exists()
    assert told.to(telegram) == [Template.NOTHING_THERE]


def test_it_disowns_no_link_that_ended_long_ago_or_was_somebody_elses(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    wrong = live_link(discord)
    linking.leave(account=discord)

    assert not linking.disown(account=account("mallory", "slack"), link_id=wrong.pk)
    later(7 * DAY, AccountLink.objects.all())
    assert not linking.disown(account=telegram, link_id=wrong.pk)
    assert not AccountLink.objects.filter(disowned=True).exists()


def test_it_disowns_no_link_of_another_person_that_has_ended(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    bob = account("bob")
    linked(bob, account("bob", "discord"))
    linked(telegram, discord)
    foreign = live_link(discord)
    linking.leave(account=discord)

    assert not linking.disown(account=bob, link_id=foreign.pk)

    foreign.refresh_from_db()
    assert not foreign.disowned


def test_it_disowns_no_link_that_had_ended_before_ones_own_began(
    telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    former = live_link(discord)
    linking.leave(account=discord)
    linked(telegram, slack)
    later(DAY, AccountLink.objects.all())

    assert not linking.disown(account=slack, link_id=former.pk)

    former.refresh_from_db()
    assert not former.disowned


def test_it_lets_a_new_link_disown_no_older_one_that_has_ended(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    linked(telegram, discord)
    slack = account("mallory", "slack")
    linked(telegram, slack)
    linking.leave(account=discord)

    assert not linking.disown(account=slack, link_id=AccountLink.objects.get(account=discord).pk)
    assert not AccountLink.objects.filter(disowned=True).exists()


# --- Silence and reminders


def test_it_keeps_the_link_of_an_account_that_writes_in_that_moment(
    telegram: PlatformAccount, discord: PlatformAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked(telegram, discord)
    later(181 * DAY, AccountLink.objects.all())
    PlatformAccount.objects.filter(pk=discord.pk).update(seen_at=F("seen_at") - timedelta(days=181))
    lock = locks.lock_people

    def writes_first(*args: Any, **options: Any) -> dict[int, int]:
        PlatformAccount.objects.filter(pk=discord.pk).update(seen_at=clock.now())
        return lock(*args, **options)

    monkeypatch.setattr(locks, "lock_people", writes_first)

    assert link_maintenance.suspend_silent() == 0
    assert live_link(discord).ended_at is None


def test_it_reminds_nobody_of_an_account_that_is_alone(told: Told, telegram: PlatformAccount) -> None:
    pairs.person("alice", telegram)
    AccountLink.objects.update(remind_at=clock.now())

    link_maintenance.remind()

    assert told.to(telegram) == []


def test_it_holds_everybody_once_when_disowning(
    telegram: PlatformAccount, discord: PlatformAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second time others might have come, before these in the order of locks."""
    linked(telegram, discord)
    held: list[set[int]] = []
    really = locks.lock_people

    def lock_people(account_ids: Iterable[int], **more: Any) -> dict[int, int]:
        held.append(set(account_ids))
        return really(held[-1], **more)

    monkeypatch.setattr(locks, "lock_people", lock_people)

    assert linking.disown(account=telegram)
    assert held == [{telegram.pk, discord.pk}]


def test_it_disowns_the_newest_of_the_others_links_whether_it_has_ended_or_not(
    telegram: PlatformAccount, discord: PlatformAccount, slack: PlatformAccount
) -> None:
    linked(telegram, discord)
    linking.leave(account=discord)
    linked(telegram, slack)
    newest = live_link(slack)

    assert linking.disown(account=telegram)

    newest.refresh_from_db()
    assert newest.disowned
    assert not AccountLink.objects.get(account=discord).disowned


@pytest.mark.parametrize("is_recent", [True, False])
def test_not_me_disowns_a_link_that_is_recent_and_only_ends_an_older_one(
    telegram: PlatformAccount, discord: PlatformAccount, is_recent: bool
) -> None:
    request = linked(telegram, discord)
    later(7 * DAY + (-60 if is_recent else 60), AccountLink.objects.all())
    wrong = live_link(discord)

    assert pair_in_chat.deny(account=telegram, pairing_id=request.pk) == Outcome.DENIED

    wrong.refresh_from_db()
    assert (wrong.ended_at is not None, wrong.disowned) == (True, is_recent)
