"""Prints as JSON what an agent would be shown in each private chat. The number is the longest window."""

from __future__ import annotations

import json
import sys

import botos_project.setup  # noqa: F401 - makes Django ready
from sessions_app.history import window
from sessions_app.models import Conversation


def main() -> None:
    limit = int(sys.argv[1])
    chats = Conversation.objects.exclude(account=None).select_related("account")
    print(
        json.dumps({str(chat.account): [line.text for line in window.window_for(chat, limit=limit)] for chat in chats})
    )


if __name__ == "__main__":
    main()
