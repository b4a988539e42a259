"""An operator pairs two accounts of a person, in a real browser, against a real process with the platforms' SDKs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.journeys.running import Platforms, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]

PASSWORD = "correct horse battery staple"
PERSON = "Bob"  # the playground's persona whose accounts are not linked


@pytest.fixture
def platforms() -> Iterator[Platforms]:
    servers = Platforms()
    yield servers
    servers.close()


class Desk:
    """The operator's browser with the admin, and Bob's with the playground, in which he types."""

    def __init__(self, browser: Browser, base: str, pictures: Path) -> None:
        self.base, self.pictures = base, pictures
        self.complaints: list[str] = []
        self.admin, self.bob = self._tab(browser), self._tab(browser)
        self.bob.goto(f"{base}/playground/?as={PERSON}")

    def _tab(self, browser: Browser) -> Page:
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.set_default_timeout(20_000)
        tab.on("console", self._note)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        return tab

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "favicon.ico" not in str(message.location):
            self.complaints.append(message.text)

    def picture(self, name: str) -> None:
        self.admin.screenshot(path=self.pictures / f"{name}.png", full_page=True)

    def sign_in(self) -> None:
        self.admin.goto(f"{self.base}/admin/")
        self.admin.fill("#id_username", "carol")
        self.admin.fill("#id_password", PASSWORD)
        self.admin.click("input[type=submit]")

    def issue(self, platform: str) -> str:
        """Pair an account: the code that is shown."""
        self.admin.click("text=Pair an account")
        self.admin.select_option("#id_platform", platform)
        self.admin.click("text=Issue a code")
        return self.admin.inner_text("#code")

    def type_as_bob(self, platform: str, text: str) -> str:
        """What the bot answers."""
        lines = self.bob.locator(f'.lines[data-platform="{platform}"] li.bot')
        before = lines.count()
        form = self.bob.locator(f"#{platform} form", has=self.bob.locator("input[name=text]"))
        form.locator("input[name=text]").fill(text)
        form.locator("button").click()
        expect(lines).not_to_have_count(before, timeout=20_000)
        return lines.last.inner_text()

    def column(self, name: str) -> list[str]:
        """What stands in the rows of a table, newest first."""
        return [text.strip() for text in self.admin.locator(f"td.{name}").all_inner_texts()]

    def wait_for_status(self, words: str) -> None:
        """The page follows by itself."""
        expect(self.admin.locator("[data-status]")).to_contain_text(words, timeout=20_000)


@pytest.fixture
def carol(transactional_db: None) -> None:
    """An operator. The process checks passwords as in production, whatever is quick enough for the tests."""
    password = PBKDF2PasswordHasher().encode(PASSWORD, "salt")
    User.objects.create(username="carol", password=password, is_staff=True, is_superuser=True)


@pytest.fixture
def desk(carol: None, chromium: Browser, platforms: Platforms, tmp_path: Path) -> Iterator[Desk]:
    """Tests look at pages and not at the database: Playwright keeps an event loop in this thread, beside which Django
    would take a second connection.
    """
    pictures = Path(os.environ.get("BROWSER_PICTURES", tmp_path))
    with running(platforms, "--playground", "--web", "127.0.0.1:0") as bots:
        found = re.search(r"http://127\.0\.0\.1:\d+", bots.wait_for_line(r"http://127\.0\.0\.1:\d+/"))
        assert found
        yield Desk(chromium, found[0], pictures)


def number_in(text: str) -> str:
    [number] = re.findall(r"\d{3} \d{3}", text)
    return str(number)


def test_it_pairs_two_accounts_of_a_person(desk: Desk) -> None:
    desk.sign_in()
    desk.admin.goto(f"{desk.base}/admin/identity/unifieduser/add/")
    desk.admin.fill("#id_unified_user_id", "bob")
    desk.admin.fill("#id_display_name", "Bob the Builder")
    desk.picture("1-add")
    desk.admin.click("input[name=_save]")
    desk.picture("2-person")

    # The first account: the operator types the number that Bob reads out.
    code = desk.issue("telegram")
    desk.picture("3-issued")
    number = number_in(desk.type_as_bob("telegram", code))
    desk.wait_for_status("has sent the code")
    assert code not in desk.admin.content()
    desk.picture("4-claimed")
    desk.admin.fill("#id_number", "000 000" if number != "000 000" else "111 111")
    desk.admin.click("form.number input[type=submit]")
    expect(desk.admin.locator(".messagelist")).to_contain_text("2 tries left")
    desk.admin.fill("#id_number", number)
    desk.admin.click("form.number input[type=submit]")
    desk.wait_for_status("Done")
    desk.picture("5-linked")

    # The second one: nobody but Bob can finish it, in the chat that he has.
    desk.admin.click("text=To the person")
    code = desk.issue("discord")
    number = number_in(desk.type_as_bob("discord", code))
    desk.wait_for_status("must type it in one of these chats")
    assert desk.admin.locator("#id_number").count() == 0
    desk.picture("6-only-bob")
    assert "now shares this conversation" in desk.type_as_bob("telegram", number)
    desk.wait_for_status("Done")

    desk.admin.click("text=To the person")
    expect(desk.admin.locator("#content")).to_contain_text("Telegram account")
    expect(desk.admin.locator("#content")).to_contain_text("Discord account")
    desk.picture("7-both")
    assert desk.column("field-method") == ["pairing", "operator"]
    assert desk.column("field-actor")[1] == "carol"
    desk.admin.goto(f"{desk.base}/admin/identity/auditevent/?q=pairing_invited")
    assert desk.column("field-actor") == ["carol", "carol"]
    assert desk.complaints == []


LISTS = ("unifieduser", "platformaccount", "accountlink", "pairing", "auditevent")


def test_it_keeps_to_the_content_security_policy_on_every_page(desk: Desk) -> None:
    desk.sign_in()
    pages = [f"identity/{model}/" for model in LISTS]
    pages += ["", "identity/", "identity/unifieduser/add/", "identity/unifieduser/import/"]

    for page in pages:
        desk.admin.goto(f"{desk.base}/admin/{page}")
        desk.picture(f"list-{page.replace('/', '-')}")
    for model in LISTS[:3]:
        desk.admin.goto(f"{desk.base}/admin/identity/{model}/")
        desk.admin.locator("#result_list th a").last.click()
        desk.picture(f"one-{model}")
        for act in ("Pair an account", "Suspend", "Revoke"):
            if desk.admin.locator(f".object-tools >> text={act}").count():
                desk.admin.click(f".object-tools >> text={act}")
                desk.picture(f"{model}-{act}")
                desk.admin.go_back()

    assert desk.complaints == []
