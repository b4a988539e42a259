"""The rules that hold for browsers, each to be taken away once: see mutants.py."""

from __future__ import annotations

from identity import attachments, browser_pairing, browsers, linking, pairing, pairing_finish
from tests.identity.mutants import Mutant

BROWSER_MUTANTS = (
    Mutant(
        "any page may finish",
        browser_pairing,
        "filter(_is_live(), initiator_browser=browser, state=State.CLAIMED)",
        "filter(_is_live(), state=State.CLAIMED)",
    ),
    Mutant(
        "a page finishes where only the chat may",
        browser_pairing,
        "filter(_is_live(), initiator_browser=browser, state=State.CLAIMED)",
        "filter(_is_live(), _is_party(browser), state=State.CLAIMED)",
    ),
    Mutant(
        "a chat finishes where only the page may",
        pairing,
        "mine = Q(initiator=account) | Q(person__in=own_people)",
        "mine = Q(initiator=account) | Q(person__in=own_people) | Q(responder=account, initiator=None)",
    ),
    Mutant("two pages may pair", browser_pairing, "offered(secret).filter(initiator__isnull=False)", "offered(secret)"),
    Mutant("a lock does not hold on a page", browser_pairing, "if limit.locked_until > now:", "if False:"),
    Mutant(
        "wrong codes on a page are not counted",
        browser_pairing,
        "    pairing_limits.count_wrong(limit, now, actor=browsers.actor(browser))\n",
        "",
    ),
    Mutant(
        "each browser guesses for itself",
        browser_pairing,
        "guesses_of(pairing_limits.guesser_at(address))",
        "guesses_of(pairing_limits.guesser_at(str(browser.pk)))",
    ),
    Mutant(
        "a new code of a page resets guesses",
        browser_pairing,
        "    pairing_rows.expire(mine)\n",
        "    pairing_limits.GuessLimit.objects.update(times=[])\n",
    ),
    Mutant(
        "starts of pages are free",
        browser_pairing,
        "if seconds := _seconds_until_start(browser):",
        "if seconds := 0:",
    ),
    Mutant(
        "an earlier code of a page lives on",
        browser_pairing,
        "pairing_rows.stop(old, State.CANCELLED, actor=browsers.actor(browser))",
        "pass",
    ),
    Mutant(
        "an earlier claim of a page lives on",
        browser_pairing,
        "pairing_rows.stop(earlier, State.DENIED, actor=browsers.actor(browser))",
        "pass",
    ),
    Mutant("no strike for what a page denies", browser_pairing, "strikes=state == State.DENIED", "strikes=False"),
    Mutant(
        "any page may deny",
        browser_pairing,
        "theirs = Pairing.objects.filter(_is_party(browser), _is_live())",
        "theirs = Pairing.objects.filter(_is_live())",
    ),
    Mutant(
        "a page that has run out takes a number",
        browser_pairing,
        "    if not browsers.hold(browser):\n        return Outcome.ENDED\n    pairing = ",
        "    pairing = ",
    ),
    Mutant(
        "the chat attaches itself to a browser that has run out",
        pairing_finish,
        "if not browsers.hold(browser):",
        "if False:",
    ),
    Mutant(
        "the number of a page links",
        pairing_finish,
        "return _attach(pairing, browser, account, how) if browser else _link(pairing, account, how)",
        "return _link(pairing, account, how)",
    ),
    Mutant(
        "an attached account of another browser is linked",
        browser_pairing,
        "live_ones().filter(browser=browser, attached_at__gt=lately)",
        "live_ones().filter(attached_at__gt=lately)",
    ),
    Mutant(
        "an account that was attached long ago is linked",
        browser_pairing,
        "live_ones().filter(browser=browser, attached_at__gt=lately)",
        "live_ones().filter(browser=browser)",
    ),
    Mutant(
        "an account that was attached is linked",
        browser_pairing,
        "attachments.live_ones().filter(browser=browser, attached_at__gt=lately)",
        "BrowserAccount.objects.filter(browser=browser, attached_at__gt=lately)",
    ),
    Mutant(
        "a browser that has run out links",
        browser_pairing,
        "    if not browsers.hold(browser):\n        return Outcome.ENDED\n    two = ",
        "    two = ",
    ),
    Mutant(
        "a page links whatever policy says",
        browser_pairing,
        "if pairing_policy.forbids_joining(sides[1], sides[0]):",
        "if False:",
    ),
    Mutant(
        "a page that nobody uses may undo",
        browser_pairing,
        "for account in browsers.readable(browser)",
        "for account in browsers.attached(browser)",
    ),
    Mutant(
        "attached twice",
        attachments,
        "live_ones().filter(browser=browser, account=account).update(ended_at=clock.now())",
        "pass",
    ),
    Mutant(
        "read without a confirmation",
        attachments,
        "filter(confirmed, attached, browser__ended_at=None)",
        "filter(attached, browser__ended_at=None)",
    ),
    Mutant(
        "read for ever",
        attachments,
        "filter(confirmed, attached, browser__ended_at=None)",
        "filter(confirmed, browser__ended_at=None)",
    ),
    Mutant(
        "use confirms anew",
        browsers,
        "attachments.fresh_ones().filter(pk__in=theirs)",
        "attachments.live_ones().filter(pk__in=theirs)",
    ),
    Mutant("use confirms nothing", browsers, ".filter(pk__in=theirs).update(", ".filter(pk__in=[]).update("),
    Mutant("a browser never idles away", browsers, "ended_at=None, seen_at__gt=idle,", "ended_at=None,"),
    Mutant("a browser never grows old", browsers, "seen_at__gt=idle, created_at__gt=old)", "seen_at__gt=idle)"),
    Mutant("signing out leaves what is attached", browsers, "    attachments.detach(browser=browser)\n", ""),
    Mutant(
        "signing out leaves requests",
        browsers,
        "pairing_rows.stop(pairing, Pairing.State.CANCELLED, actor=actor(browser))",
        "pass",
    ),
    Mutant("signing out cancels what time has ended", browsers, "    pairing_rows.expire(theirs)\n", ""),
    Mutant("not me leaves the browser", pairing, "if browser and browsers.sign_out(browser):", "if False:"),
    Mutant(
        "not me leaves what a page linked",
        pairing,
        '{pairing_id, *there.values_list("pairing", flat=True)}',
        "{pairing_id}",
    ),
    Mutant("/signout ends nothing", browsers, "filter(pk__in=named).order_by", "filter(pk__in=[]).order_by"),
    Mutant(
        "/signout ends one browser",
        browsers,
        'Browser.objects.filter(pk__in=named).order_by("pk")',
        'Browser.objects.filter(pk__in=named).order_by("pk")[:1]',
    ),
    Mutant("whoever is taken out stays in browsers", linking, "    attachments.detach(account=link.account)\n", ""),
    Mutant(
        "the older of two numbers is named",
        pairing,
        'order_by("-claimed_at").first()',
        'order_by("claimed_at").first()',
    ),
)
