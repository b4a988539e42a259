"""Everything that an account may read, as a file. A file is bounded: older entries come in the next one."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from django.template.loader import render_to_string

from identity import audit, labels
from identity.flows import linking
from identity.models import AccountLink, PlatformAccount
from identity.support import clock
from sessions_app.history import window
from sessions_app.history.window import Page
from sessions_app.messages import Line
from sessions_app.models import Conversation

MAX_ENTRIES = 20_000  # entries in one file
MAX_CHARACTERS = 4_000_000  # characters after which a file takes no more entries
AT_ONCE = 200  # entries in one query

Read = Callable[..., Page]  # the newest `limit` before `before`


def export(account: PlatformAccount, kind: str, *, before: str = "") -> tuple[str, str]:
    """The text of a file, and the `before` of the file with older entries ("" if there is none). kind: json or html.

    It has entries of the person's other accounts only if the account's own link is a day old. This is not one
    transaction, in which nobody else could write on SQLite.
    """
    own = AccountLink.objects.live().filter(account=account).select_related("user").first()
    is_all = own is not None and linking.is_established(own)
    page = _page(account, is_all=is_all, before=before)
    accounts = linking.accounts_of(own.user) if own and is_all else [account]
    groups = () if before else _filled(partial(window.own_words, account)).lines
    audit.record(
        kind="exported", actor=audit.actor(account), account=account, entries=len(page.lines), shared=int(is_all)
    )
    content = {"account": account, "accounts": accounts, "page": page, "groups": groups, "at": clock.read()}
    if kind == "html":
        described = [labels.described(member) for member in accounts]
        return render_to_string("sessions_app/export.html", {**content, "described": described}), page.older
    return _as_json(content), page.older


def older_than(account: PlatformAccount, before: str) -> str:
    """The `before` of the file that follows the one with this `before`; "" if there is none."""
    own = AccountLink.objects.live().filter(account=account).first()
    return _page(account, is_all=own is not None and linking.is_established(own), before=before).older


def _page(account: PlatformAccount, *, is_all: bool, before: str) -> Page:
    conversation = Conversation.objects.filter(account=account).first()
    if conversation is None:
        return Page(())
    return _filled(partial(window.page if is_all else window.own_page, conversation), before)


def _filled(read: Read, before: str = "") -> Page:
    """As many entries as a file takes, read in portions, as long entries would fill the memory."""
    lines: list[tuple[Line, ...]] = []
    count = length = 0
    while True:
        page = read(limit=min(AT_ONCE, MAX_ENTRIES - count), before=before)
        lines.insert(0, page.lines)
        count, length = count + len(page.lines), length + sum(len(line.text) for line in page.lines)
        before = page.older
        if not before or count >= MAX_ENTRIES or length >= MAX_CHARACTERS:
            return Page(tuple(line for portion in lines for line in portion), before)


def _as_json(content: dict[str, Any]) -> str:
    page: Page = content["page"]
    file = {
        "exported_at": content["at"].isoformat(),
        "account": _account(content["account"]),
        "accounts": [_account(member) for member in content["accounts"]],
        "entries": [_entry(line) for line in page.lines],
        "own_words_in_groups": [_entry(line) for line in content["groups"]],
        "is_complete": not page.older,
    }
    return json.dumps(file, ensure_ascii=False, indent=1)


def _account(account: PlatformAccount) -> dict[str, str]:
    names = {"display_name": account.display_name, "username": account.username}
    return {"platform": account.platform, "id": account.platform_user_id, **names}


def _entry(line: Line) -> dict[str, str]:
    place = {"platform": line.platform, "source": line.source, "source_label": line.source_label}
    return {"at": line.said_at.isoformat(), "role": line.role, "text": line.text, **place}
