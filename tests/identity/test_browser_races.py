"""Processes of chats and of browsers at the same codes: each is claimed once, nothing is attached or linked twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from identity.flows import pair_in_browser
from identity.models import AccountLink, AuditEvent, Browser, BrowserAccount, Pairing
from identity.pairing.requests import Outcome
from tests.identity import hands, pairs
from tests.identity.pairs import account, offered

pytestmark = pytest.mark.django_db(transaction=True)

# A hand tries each code, and right after that the number of the same request, whoever has claimed it.
_PAIR_ALL = (
    hands.WORKER
    + """
import random
from collections import Counter
from identity.flows import pair_in_browser
from identity.models import Browser
kind, name = sys.argv[1:]
with_both = Pairing.objects.select_related("initiator", "initiator_browser")
if kind == "chat":
    mine = PlatformAccount.objects.get(platform="discord", platform_user_id=name)
    claim = lambda code: pair_in_chat.claim(account=mine, secret=code)
else:
    page = Browser.objects.get(name=name)
    claim = lambda code: pair_in_browser.claim(browser=page, secret=code, address=name).outcome
print("ready", flush=True)
requests = list(with_both.filter(pk__in=sys.stdin.read().split()))
random.Random(name).shuffle(requests)
done = Counter()
for one in requests:
    done[claim(secrets_of(one).code)] += 1
    number = secrets_of(one).number
    if one.initiator:
        done[pair_in_chat.confirm(account=one.initiator, number=number)] += 1
    else:
        done[pair_in_browser.confirm(browser=one.initiator_browser, number=number)] += 1
print(done["claimed"], done["linked"], done["attached"], flush=True)
"""
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody is told."""
    with pairs.listening():
        yield


def shown_on(name: str) -> Pairing:
    page = Browser.objects.create(name=name, address=name)
    assert pair_in_browser.offer(browser=page).outcome == Outcome.OFFERED
    return Pairing.objects.get(initiator_browser=page)


def pair_by_processes(many: int, amount: int) -> Counter[str]:
    """What so `many` hands of each kind did with so many codes of each kind."""
    requests = [offered(account(f"alice-{nth}")) for nth in range(amount)]
    requests += [shown_on(f"page-{nth}") for nth in range(amount)]
    for nth in range(many):
        account(f"hand-{nth}", "discord")
        Browser.objects.create(name=f"hand-{nth}", address=f"hand-{nth}")
    workers = [hands.process(_PAIR_ALL, "chat", f"hand-{nth}-discord") for nth in range(many)]
    workers += [hands.process(_PAIR_ALL, "page", f"hand-{nth}") for nth in range(many)]
    outputs = hands.race({worker: [one.pk for one in requests] for worker in workers})
    done: Counter[str] = Counter()
    for claims, links, attachments in outputs:
        done.update(claimed=int(claims), linked=int(links), attached=int(attachments))
    return done


def assert_each_was_done_once(done: Counter[str], amount: int) -> None:
    assert not Pairing.objects.filter(state="offered").exists()
    claimed = Pairing.objects.filter(claimed_at__isnull=False)
    refused = Pairing.objects.filter(claimed_at=None, state="refused")  # by policy, before they were claimed
    assert done["claimed"] == claimed.count() == AuditEvent.objects.filter(kind="pairing_claimed").count()
    assert claimed.count() + refused.count() == amount

    states = Counter(Pairing.objects.values_list("state", flat=True))
    assert (done["linked"], done["attached"]) == (states["linked"], states["attached"])
    attached = set(Pairing.objects.filter(state="attached").values_list("pk", flat=True))
    made = list(BrowserAccount.objects.values_list("pairing", flat=True))
    assert sorted(made) == sorted(attached)
    live = list(BrowserAccount.objects.filter(ended_at=None).values_list("browser", "account"))
    assert len(set(live)) == len(live)

    linked = set(Pairing.objects.filter(state="linked").values_list("pk", flat=True))
    assert set(AccountLink.objects.values_list("pairing", flat=True)) == linked
    assert AccountLink.objects.count() == AuditEvent.objects.filter(kind="linked").count()
    assert min(Counter(AccountLink.objects.live().values_list("user", flat=True)).values(), default=2) >= 2


def test_chats_and_browsers_share_codes_without_one_given_twice() -> None:
    done = pair_by_processes(2, 8)

    assert_each_was_done_once(done, 16)
    assert done["attached"] > 0


@pytest.mark.faults
def test_sixteen_processes_of_chats_and_browsers_share_five_hundred_codes() -> None:
    done = pair_by_processes(8, 250)
    print(done)

    assert_each_was_done_once(done, 500)
    assert done["attached"] > 50
