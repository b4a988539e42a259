"""Every rule of the handshake, taken away once: the plays must notice."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from django.db import IntegrityError, transaction

from identity import linking, pairing, pairing_finish, pairing_limits, pairing_policy, pairing_rows
from sessions_app import history, pairing_chat
from tests.identity.browser_mutants import BROWSER_MUTANTS
from tests.identity.drills import DRILLS, Step, run
from tests.identity.handshakes_on_pages import OnPages
from tests.identity.mutants import Mutant, without_its_rule
from tests.identity.page_drills import PAGE_DRILLS

pytestmark = pytest.mark.django_db


MUTANTS = (
    Mutant(
        "the number is not compared",
        pairing_finish,
        "and codes.is_same(number, secrets_of(pairing).number)",
        "",
    ),
    Mutant("tries are not counted", pairing_rows, 'update(tries=F("tries") + 1)', 'update(tries=F("tries"))'),
    Mutant(
        "a fourth try", pairing_finish, "left = limits().number_tries - pairing.tries - 1", "left = 3 - pairing.tries"
    ),
    Mutant(
        "the responder may finish",
        pairing,
        "mine = Q(initiator=account) | Q(person__in=own_people)",
        "mine = Q(initiator=account) | Q(responder=account)",
    ),
    Mutant(
        "anybody may finish",
        pairing,
        "claimed = Pairing.objects.filter(mine, state=State.CLAIMED, expires_at__gt=clock.now())",
        "claimed = Pairing.objects.filter(state=State.CLAIMED, expires_at__gt=clock.now())",
    ),
    Mutant(
        "one code is enough",
        pairing,
        "    if not pairing_rows.take(pairing, responder=account):\n        return None\n",
        "    pairing_rows.take(pairing, responder=account)\n    _link_at_once(pairing, account)\n",
    ),
    Mutant(
        "a claimed code works again",
        pairing_rows,
        "        code_hash=None,\n        token_hash=None,\n        **responder",
        "        **responder",
        also=(("state=State.OFFERED, expires_at__gt", "state__in=[State.OFFERED, State.CLAIMED], expires_at__gt"),),
    ),
    Mutant(
        "an expired code works",
        pairing_rows,
        "state=State.OFFERED, expires_at__gt=clock.now())",
        "state=State.OFFERED)",
    ),
    Mutant(
        "a number lives as long as it likes",
        pairing_rows,
        'expires_at=Least(clock.seconds_from_now(number_seconds(pairing)), F("last_at")),',
        "expires_at=clock.seconds_from_now(number_seconds(pairing) * 9),",
    ),
    Mutant("a code may be claimed by its owner", pairing, "if pairing.initiator_id == account.pk:", "if False:"),
    Mutant("no policy at all", pairing_policy, 'return "same_platform" if platforms & joining else ""', 'return ""'),
    Mutant(
        "two people may be joined",
        pairing_policy,
        "if theirs and ours and not _left_behind(theirs, ours, is_invited=person_id is not None):",
        "if False:",
    ),
    Mutant("what was opened to others who left stays open", pairing_finish, "if len(known) == 1:", "if False:"),
    Mutant(
        "policy is not asked again",
        pairing_finish,
        "if reason := pairing_policy.forbids(pairing, responder):",
        "if reason := '':",
    ),
    Mutant("what was never shown is joined", pairing_policy, "if _has_grown(pairing, responder) else", "if False else"),
    Mutant("wrong codes are not counted", pairing_limits, "[*recent, moment][", "[*recent][:0]["),
    Mutant(
        "wrong codes of a while ago are forgotten with a new one",
        pairing_limits,
        "if at > moment - these.guess_seconds",
        "if limit.times[0] > moment - these.guess_seconds",
    ),
    Mutant("a lock does not hold", pairing, "if limit.locked_until > now:", "if False:"),
    Mutant("a lock is never longer", pairing_limits, "these.lock_again_seconds if was_locked else", ""),
    Mutant(
        "a new code resets guesses",
        pairing,
        "    mine = Pairing.objects.filter(initiator=account)\n",
        "    mine = Pairing.objects.filter(initiator=account)\n"
        "    pairing_limits.GuessLimit.objects.filter(guesser=audit.actor(account)).delete()\n",
    ),
    Mutant(
        "starts are free", pairing, "if seconds := pairing_limits.seconds_until_start(account):", "if seconds := 0:"
    ),
    Mutant(
        "an earlier code lives on", pairing, "if pairing_rows.end_whoever_has_it(old, State.CANCELLED):", "if False:"
    ),
    Mutant("an earlier claim lives on", pairing, "        _stop(earlier, State.DENIED, account)\n", "        pass\n"),
    Mutant(
        "no strike for being denied",
        pairing,
        "return _stop(pairing, State.DENIED, account, strikes=True)",
        "return _stop(pairing, State.DENIED, account)",
    ),
    Mutant(
        "no strike for a lock",
        pairing_finish,
        "was=[State.CLAIMED], strike=pairing.initiator)",
        "was=[State.CLAIMED])",
    ),
    Mutant(
        "anybody may deny",
        pairing,
        "live = Pairing.objects.filter(party, ended_at=None, expires_at__gt=clock.now())",
        "live = Pairing.objects.filter(ended_at=None, expires_at__gt=clock.now())",
    ),
    Mutant(
        "a posted code is not burned",
        pairing,
        "if pairing_rows.end(one, State.BURNED, was=[State.OFFERED])",
        "if False",
    ),
    Mutant("groups are private", pairing_chat, "if not message.is_private:", "if False:"),
    Mutant(
        "a late number is kept",
        pairing_chat,
        "if numbers and pairing.is_spent_number(account, numbers) else None",
        "if False else None",
    ),
    Mutant(
        "letters of a code are kept",
        pairing_chat,
        "return bool(found) and pairing.guess",
        "return False and pairing.guess",
    ),
    Mutant(
        "letters like a code are not counted",
        pairing,
        "for _ in found if outcome is None",
        "for _ in found[:0] if outcome is None",
    ),
    Mutant(
        "a code in a sentence is kept",
        pairing_chat,
        "if within := codes.hyphenated_code_within(text) or _token_within(text):",
        "if within := None:",
    ),
    Mutant("wrong codes beside one that lives are free", pairing, "else _wrong_ones(found, live)", "else []"),
    Mutant(
        "not me is an all-clear when it is late",
        pairing,
        "return _take_back(account, pairing_id, held)",
        "return Outcome.NOTHING",
    ),
    Mutant(
        "not me, late, keeps what was said",
        linking,
        "disowns=lambda _, link: _is_young(link)",
        "disowns=lambda *_: False",
    ),
    Mutant("not me, very late, blanks", linking, "disowns=lambda _, link: _is_young(link)", "disowns=lambda *_: True"),
    Mutant("a new link may end old ones", linking, "other.since >= own.since or is_grown(own)", "True"),
    Mutant(
        "an old link may never be ended",
        linking,
        "other.since >= own.since or is_grown(own)",
        "other.since >= own.since",
    ),
    Mutant("disowning is just unlinking", linking, "disowned=is_mistake)", "disowned=False)"),
    Mutant("whoever was taken out disowns months", linking, "(Q(ended_at=None) | young)", "Q()"),
    Mutant(
        "sharing opens all",
        linking,
        "AccountLink.objects.filter(pk=closed.pk).update(shares_past=True)",
        "AccountLink.objects.filter(user=closed.user).update(shares_past=True)",
    ),
    Mutant("undo ends the whole person", linking, "Q(pairing=pairing_id), method", "Q(), method"),
    Mutant(
        "links begin at the beginning",
        history,
        "ELSE {latest}(own.put_behind, own.since, other.since) END",
        "ELSE own.put_behind END",
    ),
    Mutant(
        "the other's since alone counts",
        history,
        "{latest}(own.put_behind, own.since, other.since)",
        "{latest}(own.put_behind, other.since)",
    ),
    Mutant(
        "the reader's since alone counts",
        history,
        "{latest}(own.put_behind, own.since, other.since)",
        "{latest}(own.put_behind, own.since)",
    ),
    Mutant("ended links are read", history, "AND other.ended_at IS NULL AND", "AND"),
    Mutant("what was disowned is read", history, "written_at > d.since)", "written_at IS NULL)"),
    Mutant("/new forgets nothing", history, "PlatformAccount.objects.filter(pk__in=meant).update(", "meant and dict("),
    Mutant(
        "/new of a new link moves older ones", linking, "or other.since > own.since or is_grown", "or True or is_grown"
    ),
    Mutant("/new moves what was linked with it", linking, "other.since > own.since or", "other.since >= own.since or"),
    Mutant("a newcomer disowns what is old", linking, "other.since >= own.since or _is_young(other)", "True"),
)


ALL = [*((mutant, DRILLS) for mutant in MUTANTS), *((mutant, PAGE_DRILLS) for mutant in BROWSER_MUTANTS)]
NAMES = [mutant.name for mutant, _ in ALL]


def is_noticed(drills: dict[str, list[Step]]) -> bool:
    """Whether a scripted play fails: by an invariant, by the words that come back, or because
    the database refuses.
    """
    for steps in drills.values():
        try:
            with transaction.atomic():
                run(OnPages(), steps)
                transaction.set_rollback(True)
        except (AssertionError, IntegrityError):
            return True
    return False


def test_every_rule_that_is_taken_away_is_there() -> None:
    sources = {mutant.module: inspect.getsource(mutant.module) for mutant, _ in ALL}
    taken = [(mutant, old) for mutant, _ in ALL for old in (mutant.old, *(old for old, _ in mutant.also))]

    assert [mutant.name for mutant, old in taken if old not in sources[mutant.module]] == []


@pytest.mark.faults
@pytest.mark.parametrize(("mutant", "drills"), ALL, ids=NAMES)
def test_a_rule_that_is_gone_is_noticed(mutant: Mutant, drills: dict[str, list[Step]]) -> None:
    with without_its_rule(mutant):
        assert is_noticed(drills), f"nobody noticed: {mutant.name}"


@pytest.mark.faults
def test_the_harness_notices_nothing_when_nothing_is_wrong() -> None:
    unchanged = Mutant("nothing", pairing, "def offer(", "def offer(")
    with without_its_rule(unchanged):
        assert not is_noticed(DRILLS | PAGE_DRILLS)


@pytest.mark.faults
@pytest.mark.parametrize("mutant", [mutant for mutant, _ in ALL], ids=NAMES)
def test_a_mutant_leaves_nothing_behind(mutant: Mutant) -> None:
    before: Callable[..., object] | dict[str, object] = dict(mutant.module.__dict__)
    with without_its_rule(mutant):
        assert mutant.module.__dict__ != before
    assert mutant.module.__dict__ == before
