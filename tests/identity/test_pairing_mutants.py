"""Every rule of the handshake, taken away once: the plays must notice.

A rule is taken away in the source of its module: `old` becomes `new`, in a copy that is run in the place of the
module's functions. So a mutant that no longer fits the source fails here, and is not forgotten.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType

import pytest
from django.db import IntegrityError, transaction

from identity import linking, pairing
from identity.models import Pairing, PlatformAccount
from sessions_app import history, pairing_chat
from tests.identity.drills import DRILLS, run
from tests.identity.handshakes import Handshakes

pytestmark = [pytest.mark.django_db, pytest.mark.faults]


@dataclass(frozen=True)
class Mutant:
    """`name`: which rule is gone."""

    name: str
    module: ModuleType
    old: str
    new: str
    also: tuple[tuple[str, str], ...] = ()  # what backs the rule, and has to go with it


MUTANTS = (
    Mutant("the number is not compared", pairing, "if codes.is_same(number, secrets_of(pairing).number):", "if True:"),
    Mutant("tries are not counted", pairing, 'update(tries=F("tries") + 1)', 'update(tries=F("tries"))'),
    Mutant("a fourth try", pairing, "left = limits().number_tries - pairing.tries - 1", "left = 3 - pairing.tries"),
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
        "    if changed != 1:\n        return None\n",
        "    _link_at_once(pairing, account)\n",
    ),
    Mutant(
        "a claimed code works again",
        pairing,
        "        code_hash=None,\n        token_hash=None,\n    )\n    if changed",
        "    )\n    if changed",
        also=(("state=State.OFFERED, expires_at__gt", "state__in=[State.OFFERED, State.CLAIMED], expires_at__gt"),),
    ),
    Mutant(
        "an expired code works",
        pairing,
        "state=State.OFFERED, expires_at__gt=clock.now())",
        "state=State.OFFERED)",
    ),
    Mutant(
        "a number lives as long as it likes",
        pairing,
        'expires_at=Least(clock.seconds_from_now(seconds), F("last_at")),',
        "expires_at=clock.seconds_from_now(seconds * 9),",
    ),
    Mutant("a code may be claimed by its owner", pairing, "if pairing.initiator_id == account.pk:", "if False:"),
    Mutant("no policy at all", pairing, 'return "same_platform" if platforms & joining else ""', 'return ""'),
    Mutant(
        "two people may be joined",
        pairing,
        "if theirs and (has_accounts or pairing.person_id):",
        "if False:",
    ),
    Mutant("policy is not asked again", pairing, "if reason := _forbids(pairing, responder):", "if reason := '':"),
    Mutant("wrong codes are not counted", pairing, "limit.failures + 1 if is_recent else 1", "0"),
    Mutant("a lock does not hold", pairing, "if limit.locked_until > now:", "if False:"),
    Mutant("a lock is never longer", pairing, "limits().lock_again_seconds if was_locked else", ""),
    Mutant(
        "a new code resets guesses",
        pairing,
        "    mine = Pairing.objects.filter(initiator=account)\n    _expire(mine)\n",
        "    mine = Pairing.objects.filter(initiator=account)\n    _expire(mine)\n"
        "    GuessLimit.objects.filter(account=account).delete()\n",
    ),
    Mutant("starts are free", pairing, "if seconds := _seconds_until_start(account):", "if seconds := 0:"),
    Mutant("an earlier code lives on", pairing, "        _end(old, State.CANCELLED)\n", "        pass\n"),
    Mutant("an earlier claim lives on", pairing, "        _stop(earlier, State.DENIED, account)\n", "        pass\n"),
    Mutant(
        "no strike for being denied",
        pairing,
        "return _stop(pairing, State.DENIED, account, strike=other)",
        "return _stop(pairing, State.DENIED, account)",
    ),
    Mutant(
        "no strike for a lock",
        pairing,
        "_end(pairing, State.LOCKED, strike=pairing.initiator)",
        "_end(pairing, State.LOCKED)",
    ),
    Mutant(
        "anybody may deny",
        pairing,
        "live = Pairing.objects.filter(party, ended_at=None, expires_at__gt=clock.now())",
        "live = Pairing.objects.filter(ended_at=None, expires_at__gt=clock.now())",
    ),
    Mutant("a posted code is not burned", pairing, "if _end(one, State.BURNED)]", "if False]"),
    Mutant("groups are private", pairing_chat, "if not message.is_private:", "if False:"),
    Mutant(
        "a late number is kept", pairing_chat, "if numbers and pairing.is_spent_number(account, numbers):", "if False:"
    ),
    Mutant(
        "a code in a sentence is kept",
        pairing_chat,
        "if within := codes.hyphenated_code_within(text) or _token_within(text):",
        "if within := None:",
    ),
    Mutant("a new link may end old ones", linking, "other.since >= own.since or grown", "True"),
    Mutant("an old link may never be ended", linking, "other.since >= own.since or grown", "other.since >= own.since"),
    Mutant("disowning is just unlinking", linking, 'disowned=method == "disowned")', "disowned=False)"),
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
    Mutant("what was disowned is read", history, "AND e.said_at <= d.until)", "AND FALSE)"),
    Mutant("/new forgets nothing", history, "PlatformAccount.objects.filter(theirs).update(", "theirs and dict("),
)


@contextmanager
def without_its_rule(mutant: Mutant) -> Iterator[None]:
    """The module's functions and constants are those of the changed source, for everybody who calls them."""
    module, source = mutant.module, inspect.getsource(mutant.module)
    for old, new in ((mutant.old, mutant.new), *mutant.also):
        assert old in source, f"{old!r} is no longer in {module.__name__}"
        source = source.replace(old, new)
    changed = ModuleType(module.__name__)
    changed.__dict__.update({"__file__": module.__file__, "_link_at_once": _link_at_once})
    # Its classes stay those that others compare with; dataclasses look their module up.
    sys.modules[module.__name__], original = changed, module
    try:
        exec(compile(source, str(module.__file__), "exec"), changed.__dict__)
    finally:
        sys.modules[module.__name__] = original
    kept = dict(module.__dict__)
    renewed = {name: one for name, one in changed.__dict__.items() if isinstance(one, (FunctionType, str, dict))}
    classes = {name: one for name, one in kept.items() if isinstance(one, type)}
    changed.__dict__.update(classes)
    module.__dict__.update({name: one for name, one in renewed.items() if not name.startswith("__")})
    try:
        yield
    finally:
        module.__dict__.clear()
        module.__dict__.update(kept)


def _link_at_once(request: Pairing, account: PlatformAccount) -> None:
    """What a system with one code does."""
    request.responder = account
    pairing._link(request, linking.How("pairing", "nobody"))


def is_noticed() -> bool:
    """Whether a scripted play fails: by an invariant, by the words that come back, or because
    the database refuses.
    """
    for steps in DRILLS.values():
        try:
            with transaction.atomic():
                run(Handshakes(), steps)
                transaction.set_rollback(True)
        except (AssertionError, IntegrityError):
            return True
    return False


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_rule_that_is_gone_is_noticed(mutant: Mutant) -> None:
    with without_its_rule(mutant):
        assert is_noticed(), f"nobody noticed: {mutant.name}"


def test_the_harness_notices_nothing_when_nothing_is_wrong() -> None:
    unchanged = Mutant("nothing", pairing, "def offer(", "def offer(")
    with without_its_rule(unchanged):
        assert not is_noticed()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_leaves_nothing_behind(mutant: Mutant) -> None:
    before: Callable[..., object] | dict[str, object] = dict(mutant.module.__dict__)
    with without_its_rule(mutant):
        assert mutant.module.__dict__ != before
    assert mutant.module.__dict__ == before
