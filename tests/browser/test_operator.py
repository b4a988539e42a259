"""An operator pairs two accounts of a person, in a real browser, against a real process with the platforms' SDKs."""

from __future__ import annotations

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from identity.flows import linking
from tests.browser.visitor import NUMBER, PICTURES, Visitor, another_number, number_in

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def furnished(db: None) -> None:
    """An operator, and a person. The process checks passwords as in production, whatever is quick for the tests."""
    password = PBKDF2PasswordHasher().encode(PASSWORD, "salt")
    User.objects.create(username="carol", password=password, is_staff=True, is_superuser=True)
    for platform in ("telegram", "discord"):
        linking.link(
            platform=platform, platform_user_id="4711", unified_user_id="alice", method="resolver", actor="carol"
        )


@pytest.fixture
def admin(visitor: Visitor) -> Page:
    visitor.page.goto("/admin/")
    visitor.page.fill("#id_username", "carol")
    visitor.page.fill("#id_password", PASSWORD)
    visitor.page.click("input[type=submit]")
    return visitor.page


def picture(admin: Page, name: str) -> None:
    if PICTURES:
        admin.screenshot(path=f"{PICTURES}/operator-{name}.png", full_page=True)


def issue(admin: Page, platform: str) -> str:
    """Pair an account: the code that is shown."""
    admin.click("text=Pair an account")
    admin.select_option("#id_platform", platform)
    admin.click("text=Issue a code")
    return admin.inner_text("#code")


def column(admin: Page, name: str) -> list[str]:
    """What stands in the rows of a table, newest first."""
    return [text.strip() for text in admin.locator(f"td.{name}").all_inner_texts()]


def wait_for_status(admin: Page, words: str) -> None:
    """The page follows by itself."""
    expect(admin.locator("[data-status]")).to_contain_text(words)


def test_it_pairs_two_accounts_of_a_person(visitor: Visitor, admin: Page) -> None:
    admin.goto("/admin/identity/unifieduser/add/")
    admin.fill("#id_unified_user_id", "bob")
    admin.fill("#id_display_name", "Bob the Builder")
    picture(admin, "1-add")
    admin.click("input[name=_save]")
    picture(admin, "2-person")

    # The first account: the operator types the number that Bob reads out.
    code = issue(admin, "telegram")
    picture(admin, "3-issued")
    number = number_in(visitor.phone.send("telegram", code, NUMBER))
    wait_for_status(admin, "sent the code")
    assert code not in admin.content()
    picture(admin, "4-claimed")
    admin.fill("#id_number", another_number(number))
    admin.click("form.number input[type=submit]")
    expect(admin.locator(".messagelist")).to_contain_text("2 tries left")
    admin.fill("#id_number", number)
    admin.click("form.number input[type=submit]")
    wait_for_status(admin, "Done")
    picture(admin, "5-linked")

    # The second one: nobody but Bob can finish it, in the chat that he has.
    admin.click("text=Back to the person")
    code = issue(admin, "discord")
    number = number_in(visitor.phone.send("discord", code, NUMBER))
    wait_for_status(admin, "must type it in one of these chats")
    assert admin.locator("#id_number").count() == 0
    picture(admin, "6-only-bob")
    visitor.phone.send("telegram", number, r"(?s)Linked\..*share one conversation")
    wait_for_status(admin, "Done")

    admin.click("text=Back to the person")
    expect(admin.locator("#content")).to_contain_text("Telegram account")
    expect(admin.locator("#content")).to_contain_text("Discord account")
    picture(admin, "7-both")
    assert column(admin, "field-method") == ["pairing", "operator"]
    assert column(admin, "field-actor")[1] == "carol"
    admin.goto("/admin/identity/auditevent/?q=pairing_invited")
    assert column(admin, "field-actor") == ["carol", "carol"]


LISTS = ("unifieduser", "platformaccount", "accountlink", "pairing", "auditevent")


def test_it_keeps_to_the_content_security_policy_on_every_page(admin: Page) -> None:
    pages = [f"identity/{model}/" for model in LISTS]
    pages += ["", "identity/", "identity/unifieduser/add/", "identity/unifieduser/import/"]

    for page in pages:
        admin.goto(f"/admin/{page}")
        picture(admin, f"list-{page.replace('/', '-')}")
    for model in LISTS[:3]:
        admin.goto(f"/admin/identity/{model}/")
        admin.locator("#result_list th a").last.click()
        picture(admin, f"one-{model}")
        for act in ("Pair an account", "Suspend", "Revoke"):
            if admin.locator(f".object-tools >> text={act}").count():
                admin.click(f".object-tools >> text={act}")
                picture(admin, f"{model}-{act}")
                admin.go_back()
