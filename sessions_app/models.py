"""What is being said: events as they arrive, conversations and their history, and the deliveries that go out."""

from __future__ import annotations

import secrets
import uuid

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from identity.models import PlatformAccount
from identity.support import clock, keys

CRASHES_BEFORE_QUARANTINE = 3  # of processes, while they answered a message


class Conversation(models.Model):
    """Where things are said: the private chat of one account with the bot, or a group chat or thread.

    `key` is `platform:user id` for a private chat (the resolved id where another resolver than the database's decides
    who somebody is) and `platform/chat/thread` for a group; unique within its kind. The address is where it was last
    heard from.
    """

    class Kind(models.TextChoices):
        DM = "dm", _("private chat")
        GROUP = "group", _("group")

    kind = models.CharField(max_length=5, choices=Kind.choices)
    key = models.CharField(max_length=450)
    # Set for private chats whose unity is computed from links; empty for groups and where a resolver decides.
    account = models.OneToOneField(PlatformAccount, null=True, on_delete=models.PROTECT, related_name="conversation")
    platform = models.CharField(max_length=40)
    chat_id = models.CharField(max_length=190)
    thread_id = models.CharField(max_length=190, blank=True)
    # As PlatformAccount.window_from, for conversations without an account of their own.
    window_from = models.DateTimeField(default=clock.EPOCH, editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        verbose_name = _("conversation")
        constraints = [
            # Where an account is set it is the key. The same string from another resolver is another conversation.
            models.UniqueConstraint(
                fields=["kind", "key"], condition=models.Q(account=None), name="conversation_key_is_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Lane(models.Model):
    """The right to work on a conversation: one holder at a time, until `lease_until`, under a fence that only grows.

    A person's turns are serial because a claim refuses while any of their conversations is held (see leases.claim).
    """

    conversation = models.OneToOneField(Conversation, primary_key=True, on_delete=models.CASCADE)
    owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(default=clock.EPOCH)
    fence = models.PositiveBigIntegerField(default=0)
    not_before = models.DateTimeField(default=clock.EPOCH)  # backing off after a failure

    class Meta:
        verbose_name = _("lane")

    def __str__(self) -> str:
        return f"lane of {self.conversation_id}"


class PollerLease(models.Model):
    """The right to receive for a bot: one process at a time.

    `key` is made of the bot's token (see receiver_leases.key_of).
    """

    key = models.CharField(max_length=64, primary_key=True)
    owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(default=clock.EPOCH)

    class Meta:
        verbose_name = _("poller")

    def __str__(self) -> str:
        return f"poller {self.key[:8]}"


class InboundEvent(models.Model):
    """One message as it was received, stored before the platform is told so."""

    class Kind(models.TextChoices):
        MESSAGE = "message", _("message")
        COMMAND = "command", _("command")
        PAIRING = "pairing", _("about linking")  # decided at receipt, its words not kept

    class Status(models.TextChoices):
        PENDING = "pending", _("waiting")
        DONE = "done", _("done")
        QUARANTINED = "quarantined", _("quarantined")
        GIVEN_UP = "given up", _("given up")  # the agent failed too often; the person was told

    platform = models.CharField(max_length=40)
    native_key = models.CharField(max_length=190)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, related_name="events")
    account = models.ForeignKey(PlatformAccount, on_delete=models.PROTECT, related_name="events")
    chat_id = models.CharField(max_length=190)
    chat_name = models.CharField(max_length=150, blank=True)
    thread_id = models.CharField(max_length=190, blank=True)
    message_id = models.CharField(max_length=190, blank=True)
    text = models.TextField()
    edited = models.TextField(blank=True)  # new words that came while a turn had the old ones
    status = models.CharField(max_length=11, choices=Status.choices, default=Status.PENDING)
    starts = models.PositiveSmallIntegerField(default=0)  # counted before the agent is called, so that a crash counts
    failures = models.PositiveSmallIntegerField(default=0)  # of the agent, told to the person
    received_at = models.DateTimeField(default=clock.now, editable=False)
    done_at = models.DateTimeField(null=True, editable=False)  # empty exactly while the event waits
    emptied_at = models.DateTimeField(null=True, editable=False)  # when its words were old enough to go
    dismissed_at = models.DateTimeField(null=True, editable=False)  # an operator leaves it as it is (see redrive)

    class Meta:
        verbose_name = _("inbound event")
        permissions = [
            ("redrive_event", _("Can have a message answered that was given up")),
            ("dismiss_event", _("Can dismiss a message that was given up")),
        ]
        constraints = [
            models.UniqueConstraint(fields=["platform", "native_key"], name="event_is_received_once"),
            models.CheckConstraint(
                condition=Q(status="pending", done_at=None) | (~Q(status="pending") & Q(done_at__isnull=False)),
                name="event_waits_until_it_is_done",
            ),
        ]
        indexes = [
            # leases.waiting and leases.claim. (IS NULL, since SQLite cannot match a parameter with an index condition.)
            models.Index(fields=["platform", "id"], condition=Q(done_at=None), name="events_waiting_by_platform"),
            models.Index(fields=["conversation", "id"], condition=Q(done_at=None), name="events_waiting_in_a_lane"),
            # retention (IS NULL, as above)
            models.Index(
                fields=["done_at"], condition=Q(emptied_at=None, done_at__isnull=False), name="events_with_words"
            ),
            models.Index(fields=["done_at"], condition=Q(done_at__isnull=False), name="events_by_end"),
            # redrive
            models.Index(fields=["id"], condition=Q(status__in=["quarantined", "given up"]), name="events_given_up"),
            # inbox.edit
            models.Index(fields=["platform", "chat_id", "message_id"], name="events_by_message"),
        ]

    def __str__(self) -> str:
        return f"{self.platform} {self.native_key}"


class Watermark(models.Model):
    """How far a private chat is taken in, where its platform lets a bot read back: up to `position` nothing is missing.

    Only the number, in the platform's own order of messages. What was said before `since` is never read back.
    """

    platform = models.CharField(max_length=40)
    chat_id = models.CharField(max_length=190)
    position = models.PositiveBigIntegerField(default=0)
    since = models.DateTimeField(default=clock.EPOCH)

    class Meta:
        verbose_name = _("watermark")
        constraints = [models.UniqueConstraint(fields=["platform", "chat_id"], name="chat_has_one_watermark")]

    def __str__(self) -> str:
        return f"{self.platform} {self.chat_id} up to {self.position}"


class HistoryEntry(models.Model):
    """One thing that was said in a conversation. It stays where it was said; who may read it is a query (see history).

    `said_at` is the time of receipt, for a reply that of the message it answers, so that a turn is on one side of a
    link. A reply knows what its window said when it was written, at `written_at`: only there do the two differ.
    """

    class Role(models.TextChoices):
        USER = "user", _("person")
        ASSISTANT = "assistant", _("assistant")

    class Source(models.TextChoices):
        MESSAGE = "message", _("message")
        REPLY = "reply", _("reply")
        MIRROR = "mirror", _("mirror")

    # Without an index of its own: PostgreSQL would prefer it to `entries_in_order`, and sort a whole conversation.
    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, related_name="entries", db_index=False)
    author = models.ForeignKey(PlatformAccount, null=True, on_delete=models.PROTECT, related_name="entries")
    # The message of a user entry; of a reply, the first message that its turn answers.
    event = models.ForeignKey(InboundEvent, null=True, on_delete=models.SET_NULL, related_name="entries")
    role = models.CharField(max_length=9, choices=Role.choices)
    source = models.CharField(max_length=7, choices=Source.choices)
    source_label = models.CharField(max_length=80, blank=True)
    text = models.TextField()
    metadata = models.JSONField(default=dict, blank=True)
    platform = models.CharField(max_length=40)
    chat_id = models.CharField(max_length=190, blank=True)
    thread_id = models.CharField(max_length=190, blank=True)
    message_id = models.CharField(max_length=190, blank=True)
    said_at = models.DateTimeField(default=clock.now, editable=False)
    written_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        verbose_name = _("history entry")
        verbose_name_plural = _("history entries")
        constraints = [
            models.UniqueConstraint(
                fields=["event", "role"], condition=Q(event__isnull=False), name="event_has_one_entry_a_role"
            )
        ]
        indexes = [models.Index(fields=["conversation", "said_at", "id"], name="entries_in_order")]

    def __str__(self) -> str:
        return f"{self.role} in {self.conversation_id}"


def new_nonce() -> str:
    """Names a delivery to its platform over all attempts: 24 characters, since Discord takes 25."""
    return secrets.token_hex(12)


class OutboundDelivery(models.Model):
    """One message on its way out, at most as long as its platform takes. Sent in order per address."""

    class Status(models.TextChoices):
        DRAFTING = "drafting", _("being written")  # shown while the agent answers, never sent (see drafts)
        PENDING = "pending", _("waiting")
        SENDING = "sending", _("being sent")
        SENT = "sent", _("sent")
        DEAD = "dead", _("dead letter")

    platform = models.CharField(max_length=40)
    chat_id = models.CharField(max_length=190)
    thread_id = models.CharField(max_length=190, blank=True)
    text = models.TextField(blank=True)
    # What is said about linking: words are made of these when it is sent, so that no code is stored.
    template = models.CharField(max_length=20, blank=True)
    subject = models.JSONField(default=dict, blank=True)
    account = models.ForeignKey(PlatformAccount, null=True, on_delete=models.CASCADE, related_name="deliveries")
    nonce = models.CharField(max_length=25, default=new_nonce, unique=True, editable=False)
    event = models.ForeignKey(InboundEvent, null=True, on_delete=models.SET_NULL, related_name="deliveries")
    entry = models.ForeignKey(HistoryEntry, null=True, on_delete=models.SET_NULL, related_name="deliveries")
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    may_be_repeat = models.BooleanField(default=False)  # an attempt ended without an answer
    owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(default=clock.EPOCH)
    not_before = models.DateTimeField(default=clock.EPOCH)
    message_id = models.CharField(max_length=190, blank=True)
    reason = models.CharField(max_length=300, blank=True)  # of the last failure
    created_at = models.DateTimeField(default=clock.now, editable=False)
    settled_at = models.DateTimeField(null=True, editable=False)  # sent, or given up
    dismissed_at = models.DateTimeField(null=True, editable=False)  # as that of an event

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        permissions = [
            ("redrive_delivery", _("Can send a dead delivery again")),
            ("dismiss_delivery", _("Can dismiss a dead delivery")),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["drafting", "pending", "sending"], settled_at=None)
                | Q(status__in=["sent", "dead"], settled_at__isnull=False),
                name="delivery_is_open_until_settled",
            ),
            models.UniqueConstraint(fields=["event"], condition=Q(status="drafting"), name="event_has_one_draft"),
        ]
        indexes = [
            # outbox.queue.claim: what is due, and what stands before it at the same address
            models.Index(fields=["platform", "id"], condition=Q(settled_at=None), name="deliveries_open_by_platform"),
            models.Index(
                fields=["platform", "chat_id", "thread_id", "id"],
                condition=Q(settled_at=None),
                name="deliveries_open_at_an_address",
            ),
            # redrive
            models.Index(fields=["id"], condition=Q(status="dead"), name="deliveries_dead"),
            # retention
            models.Index(fields=["settled_at"], condition=Q(settled_at__isnull=False), name="deliveries_by_end"),
            # forgetting
            models.Index(fields=["platform", "chat_id"], name="deliveries_by_address"),
        ]

    def __str__(self) -> str:
        return f"{self.status} to {self.platform} {self.chat_id}"


def new_request_nonce() -> bytes:
    """Goes into the number of one request to be forgotten, so that its id alone derives nothing."""
    return keys.new_nonce()


class ForgetRequest(models.Model):
    """Somebody wants to be forgotten. The number that decides it is derived from `id` and `nonce`, and kept nowhere."""

    class State(models.TextChoices):
        ASKED = "asked", _("waiting for the number")
        CONFIRMED = "confirmed", _("to be forgotten")
        ERASING = "erasing", _("being forgotten")
        CLEANING = "cleaning", _("the files are being cleaned")
        DONE = "done", _("forgotten")
        ENDED = "ended", _("came to nothing")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    nonce = models.BinaryField(max_length=16, default=new_request_nonce, editable=False)
    account = models.ForeignKey(PlatformAccount, on_delete=models.CASCADE, related_name="+")
    # ids of all that is to be forgotten, as it was said when it was asked for; never more, and less as links end
    accounts = models.JSONField(default=list)
    browser = models.UUIDField(null=True, editable=False)  # where the number is typed; empty for the chat
    state = models.CharField(max_length=9, choices=State.choices, default=State.ASKED)
    tries = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    expires_at = models.DateTimeField(editable=False)  # the number; once erased, from when on the files may be cleaned
    confirmed_at = models.DateTimeField(null=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("request to be forgotten")
        constraints = [
            models.UniqueConstraint(fields=["account"], condition=Q(ended_at=None), name="account_is_forgotten_once"),
        ]

    def __str__(self) -> str:
        return f"{self.state} request"


class ForgottenEvent(models.Model):
    """The keyed hash of a message that was forgotten: when its platform delivers it again it does not come back."""

    key_hash = models.CharField(max_length=64, primary_key=True)
    forgotten_at = models.DateTimeField(default=clock.now, editable=False, db_index=True)

    class Meta:
        verbose_name = _("forgotten message")

    def __str__(self) -> str:
        return self.key_hash[:8]


class Tally(models.Model):
    """How often something was done, by all processes together; see counters.py."""

    what = models.CharField(max_length=30)
    platform = models.CharField(max_length=40)
    count = models.PositiveBigIntegerField(default=0, db_default=0)

    class Meta:
        verbose_name = _("tally")
        verbose_name_plural = _("tallies")
        constraints = [models.UniqueConstraint(fields=["what", "platform"], name="tally_is_kept_once")]

    def __str__(self) -> str:
        return f"{self.what} {self.platform}: {self.count}"


class Duty(models.Model):
    """When something that is done again and again last succeeded, and last failed; see duties.py."""

    name = models.CharField(max_length=60, primary_key=True)
    succeeded_at = models.DateTimeField(null=True, editable=False)
    failed_at = models.DateTimeField(null=True, editable=False)
    error = models.CharField(max_length=100, blank=True)  # the class of the last failure's exception

    class Meta:
        verbose_name = _("duty")
        verbose_name_plural = _("duties")

    def __str__(self) -> str:
        return self.name
