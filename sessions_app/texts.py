"""What BotOS itself says in a chat, in one place. Read aloud before you change one."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

IDENTITY_UNKNOWN = _(
    "I can't tell who you are right now, so I have not kept that message. Please send it again in a little while."
)
TRYING_AGAIN = _("I could not answer that just now. I have kept your message and am trying again.")
GAVE_UP = _("I still could not answer that. Your message is kept. Please ask me again in a while.")
PUT_ASIDE = _("Something in that message keeps stopping me, so I have put it aside. Please try other words.")

STARTED_ANEW = _(
    "A new conversation starts here, on all your linked apps. What was said before stays in your history, "
    "but I no longer look at it."
)
STARTED_ANEW_IN_GROUP = _("A new conversation starts here. I no longer look at what was said before.")
WELCOME = _("Hello! Write to me and I answer. I remember what you tell me here. /help shows what else I can do.")
HELP = _(
    "Write to me and I answer.\n\n"
    "/link - share one conversation with another app of yours\n"
    "/accounts - which accounts share it\n"
    "/unlink - take this account out\n"
    "/new - start a new conversation\n"
    "/history - the last things that were said\n"
    "/whoami - who I think you are\n"
    "/help - this text"
)
NO_HISTORY = _("Nothing has been said here yet.")
WHOAMI = _('You are "%(name)s" on %(platform)s (ID %(id)s). To me you are %(person)s.')
YOU = _("You")
ME = _("I")
