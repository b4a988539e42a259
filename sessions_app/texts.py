"""What BotOS itself says in a chat, in one place. Read aloud before you change one."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

IDENTITY_UNKNOWN = _(
    "I can't tell who you are right now, so I didn't keep that message. Please send it again in a few minutes."
)
TRYING_AGAIN = _("I couldn't answer that just now. I saved your message and I'm trying again.")
GAVE_UP = _("I still couldn't answer that. I saved your message: send /retry later and I'll try again.")
TOO_LONG = _(
    "That's too long for me, even without our earlier messages. Send it in shorter parts. To start over without "
    "earlier messages, send /new."
)
DECLINED = _("I can't answer that: the service that I think with doesn't allow it. You can ask me something else.")
REJECTED = _("The service that I think with doesn't take that message. You can ask me in another way, or send /new.")
OPERATOR_NEEDED = _(
    "I can't answer at the moment, and only the operator of this bot can fix it. I saved your message: send /retry "
    "later and I'll try again."
)
TOO_MANY_STEPS = _("That took me too many steps, so I stopped. You can ask me for a smaller part of it.")
OUT_OF_ROOM = _("I ran out of room before I could answer that. You can ask me for something shorter, or send /new.")
CUT_OFF = _("(cut off - ask me to go on)")
CUT_SHORT = _("[This answer got too long, so I cut it off here.]")
QUARANTINED = _(
    "I was interrupted several times while working on that message, so I set it aside. I saved it: ask me something "
    "else, or send /retry."
)
STOP = _("Stop")
STOPPED = _("(stopped)")
HAVE_STOPPED = _("OK, I've stopped.")
NOTHING_TO_STOP = _("I'm not working on anything for you right now.")
ABOUT_OLD_MESSAGE = _("About your message of %(day)s:")
ABOUT_OLD_MESSAGES = _("About your messages since %(day)s:")
SENT_LATE = _("I meant to send this on %(day)s:")
ASKING_AGAIN = _("I'm trying again to answer your last failed message.")
NOTHING_TO_RETRY = _("You have no failed messages to retry here.")

UNKNOWN_COMMAND = _("I don't know %(typed)s. Send /help to see what I can do.")
DID_YOU_MEAN = _("I don't know %(typed)s. Did you mean %(meant)s?")

CONTEXT_RESET = _(
    "A new conversation starts here, on all your linked apps. Earlier messages stay in your history, but I no longer "
    "look at them."
)
CONTEXT_RESET_HERE = _(
    "A new conversation starts here. Accounts that were linked before this one, or together with it, continue as "
    "before: this account is too new to decide for them, so send /new there too."
)
CONTEXT_RESET_IN_GROUP = _("A new conversation starts here. I no longer look at earlier messages.")
WHAT_IS_KEPT = _("Before we start: I store our conversation so that I can remember it.")
WHAT_ABOUT_IT = _("Send /export to get a copy of it, or /forget to delete it.")
WELCOME = _("Hello! Write to me and I'll answer. I remember what you tell me here. Send /help to see what I can do.")
HELP = _("Write to me and I'll answer.")
NO_HISTORY = _("There are no messages here yet.")
WHOAMI = _('You are "%(name)s" on %(platform)s (ID %(id)s). I know you as %(person)s.')
YOU = _("You")
SOMEONE = _("Someone")
ME = _("I")
SEARCH_FOR_WHAT = _("Which words should I look for? For example: /search octarine")
NOTHING_FOUND = _("I found no messages with these words that you can read here.")
FOUND = _("%(day)s %(who)s, on %(app)s: %(text)s")
PREFERRED = _("When I write to you first, I use %(app)s. To change that, send /prefer and one of these: %(apps)s.")
PREFERRED_LAST = _(
    "When I write to you first, I use the app where you wrote last. To change that, send /prefer and one of these: "
    "%(apps)s."
)
PREFER_WHAT = _("Send /prefer and one of these: %(apps)s.")
TOO_NEW_TO_PREFER = _(
    "This account was linked less than a day ago, so it can't decide that for older ones yet. Use one of those instead."
)
NOTHING_TO_PREFER = _("I only know you here, so this is where I write to you. Send /link to add another app.")
EXPORT = _("Open %(where)s, verify that it's you with a code from this chat (/link), and choose an export.")
MY_PAGE = _('"My page" on this bot\'s website')
FORGET_NUMBER = _(
    "Type %(number)s here to delete everything I know about %(accounts)s: messages, names and IDs. This can't be "
    "undone. The number works for %(lasting)s. If you didn't ask for this, do nothing."
)
FORGET_NUMBER_ON_PAGE = _(
    "A browser where you are signed in asks me to delete everything I know about %(accounts)s: messages, names and "
    "IDs. This can't be undone. If you want that, type %(number)s on the page (%(lasting)s). If you don't, do "
    "nothing."
)
FORGET_WARNED = _("I warn the other accounts first. If I can't write to one of them, I keep it.")
FORGET_ENDED = _("That request has ended. Send /forget for a new number.")
FORGET_LOCKED = _("Too many wrong numbers, so I deleted nothing. Send /forget for a new number.")
FORGETTING = _(
    "I'm deleting everything I know about %(accounts)s: messages, names and IDs. It takes a minute or two. This is "
    "my last message here."
)
FORGETTING_TOGETHER = _("If an account is unlinked before I start, I keep it.")
KEPT = _("Not deleted: %(account)s. %(why)s")
KEPT_ELSEWHERE = _(
    "Accounts that aren't linked with the deleted ones, including accounts that used to be. Send /forget in their "
    "chats."
)
KEPT_GROUPS = _("What other people wrote in groups, my answers to them, and what I sent there on my own.")
KEPT_ANSWERS = _("My messages in the chats that are kept, even where they repeat your words.")
KEPT_LOG = _("The log of what was done and when. It has a keyed hash instead of an account's ID, and no names.")
KEPT_BACKUPS = _("Backups that the operator made, and what the platforms and the model's provider store.")
ALWAYS_KEPT = (KEPT_ELSEWHERE, KEPT_GROUPS, KEPT_ANSWERS, KEPT_LOG, KEPT_BACKUPS)
KEPT_ANYWAY = _("I also keep:")
FORGET_NOT_HERE = _("I can't do that here by myself. Ask the operator of this bot to delete what it stores about you.")
FORGET_NOT_NOW = _("You've asked for that too often. Try again in an hour.")
