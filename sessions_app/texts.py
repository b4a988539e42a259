"""What BotOS itself says in a chat, in one place. Read aloud before you change one."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

IDENTITY_UNKNOWN = _(
    "I can't tell who you are right now, so I have not kept that message. Please send it again in a little while."
)
TRYING_AGAIN = _("I could not answer that just now. I have kept your message and am trying again.")
GAVE_UP = _("I still could not answer that. Your message is kept: send /retry in a while and I will try again.")
CUT_SHORT = _("[This answer went on and on, so I cut it here.]")
PUT_ASIDE = _(
    "I was interrupted several times while I worked on that message, so I have put it aside. It is kept: ask "
    "something else meanwhile, or /retry."
)
ASKING_AGAIN = _("I am trying again to answer the last message that I could not answer.")
NOTHING_TO_RETRY = _("There is no message of yours here that I could not answer.")

STARTED_ANEW = _(
    "A new conversation starts here, on all your linked apps. What was said before stays in your history, "
    "but I no longer look at it."
)
STARTED_ANEW_HERE = _(
    "A new conversation starts here. Accounts that were not linked after this one go on as they were: it is too new "
    "to decide for them, so send /new there, too."
)
STARTED_ANEW_IN_GROUP = _("A new conversation starts here. I no longer look at what was said before.")
WHAT_IS_KEPT = _("Before we start: I keep what you write to me here and what I answer, so that I remember it.")
WHAT_ABOUT_IT = _("/export gives you all of it, /forget deletes it.")
WELCOME = _("Hello! Write to me and I answer. I remember what you tell me here. /help shows what else I can do.")
HELP = _("Write to me and I answer.")
NO_HISTORY = _("Nothing has been said here yet.")
WHOAMI = _('You are "%(name)s" on %(platform)s (ID %(id)s). To me you are %(person)s.')
YOU = _("You")
ME = _("I")
SEARCH_FOR_WHAT = _("Which words? For example: /search octarine")
NOTHING_FOUND = _("Nothing that you may read here has these words.")
FOUND = _("%(day)s %(who)s, on %(app)s: %(text)s")
PREFERRED = _("When you have not asked, I write to you on %(app)s. To change it: /prefer and one of %(apps)s.")
PREFERRED_LAST = _(
    "When you have not asked, I write to you where you wrote last. To change it: /prefer and one of %(apps)s."
)
PREFER_WHAT = _("Send /prefer and one of these: %(apps)s.")
TOO_NEW_TO_PREFER = _(
    "This account was linked less than a day ago. It cannot decide that for older ones yet; use one of those."
)
NOTHING_TO_PREFER = _("I only know you here, so this is where I write to you. /link adds another app.")
EXPORT = _("Open %(where)s, show that it is you with a code from this chat (/link), and choose an export.")
MY_PAGE = _('"My page" on the web pages of this bot')
FORGET_NUMBER = _(
    "Type %(number)s here to delete all that I know of %(accounts)s: what was said, names and ids. This cannot be "
    "undone. The number works for %(lasting)s. If you did not ask for this, do nothing."
)
FORGET_NUMBER_ON_PAGE = _(
    "A browser in which you are signed in asks to delete all that I know of %(accounts)s: what was said, names and "
    "ids. This cannot be undone. If you want that, type %(number)s on the page (%(lasting)s). Else do nothing."
)
FORGET_WARNED = _("I write to the other accounts first. One that I cannot write to is kept.")
FORGET_ENDED = _("That request has ended. Send /forget for a new number.")
FORGET_LOCKED = _("Too many wrong numbers, so nothing is deleted. Send /forget for a new one.")
FORGETTING = _(
    "I am deleting all that I know of %(accounts)s: what was said, names and ids. It takes a minute or two. This is "
    "the last you will hear from me here."
)
FORGETTING_TOGETHER = _("An account that is unlinked before I begin is kept.")
KEPT = _("Not deleted: %(account)s. Why: %(why)s.")
KEPT_ELSEWHERE = _(
    "Accounts that are not linked with the deleted ones, also those that were linked earlier. Send /forget in their "
    "chats."
)
KEPT_GROUPS = _("What others said in groups, what I answered them, and what I sent there unasked.")
KEPT_ANSWERS = _("What I said in the chats that are kept, also where it repeats your words.")
KEPT_LOG = _("The log of what was done and when. It has a keyed hash in place of an account's id, and no names.")
KEPT_BACKUPS = _("Backups that the operator has made, and what the platforms and the model's provider keep.")
ALWAYS_KEPT = (KEPT_ELSEWHERE, KEPT_GROUPS, KEPT_ANSWERS, KEPT_LOG, KEPT_BACKUPS)
KEPT_ANYWAY = _("I also keep:")
FORGET_NOT_HERE = _("I cannot do that by myself here. Ask whoever runs this bot to delete what it keeps of you.")
FORGET_NOT_NOW = _("You have asked for that often. Try again in an hour.")
