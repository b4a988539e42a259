"""Received events, conversations and their history, and outgoing deliveries."""

from __future__ import annotations

import secrets
import uuid
from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from identity.models import PlatformAccount
from identity.support import clock, keys

CRASHES_BEFORE_QUARANTINE = 3  # crashes of processes that answered a message


class Conversation(models.Model):
    """The private chat of one account with the bot, or a group chat or thread.

    key: unique within its kind. It is `platform:user id` for a private chat, or the resolved id under another resolver
    than the database's, and `platform/chat/thread` for a group. The address is that of the last message.
    """

    class Kind(models.TextChoices):
        DM = "dm", _("private chat")
        GROUP = "group", _("group")

    kind = models.CharField(max_length=5, choices=Kind.choices)
    key = models.CharField(max_length=450)
    # Set for private chats where the database decides who is who; empty for groups and under another resolver.
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
            # Where an account is set, it identifies the conversation, even if another resolver has the same key.
            models.UniqueConstraint(
                fields=["kind", "key"], condition=models.Q(account=None), name="conversation_key_is_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Lane(models.Model):
    """The turn lease of a conversation: one holder at a time, until `lease_until`, under a fence that only grows.

    A person's turns are serial, as `leases.claim` leases nothing while one of the person's conversations is leased.
    """

    conversation = models.OneToOneField(Conversation, primary_key=True, on_delete=models.CASCADE)
    owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(default=clock.EPOCH)
    fence = models.PositiveBigIntegerField(default=0)
    not_before = models.DateTimeField(default=clock.EPOCH)  # the end of a pause that an earlier version made
    stop_fence = models.PositiveBigIntegerField(null=True)  # the fence of the turn that a person has stopped

    class Meta:
        verbose_name = _("lane")

    def __str__(self) -> str:
        return f"turn lease of {self.conversation_id}"


class ReceiverLease(models.Model):
    """The lease for receiving as a bot: one process at a time. key: made from the token by `receiver_leases.key_of`."""

    key = models.CharField(max_length=64, primary_key=True)
    owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(default=clock.EPOCH)

    class Meta:
        db_table = "sessions_app_pollerlease"
        verbose_name = _("receiver lease")

    def __str__(self) -> str:
        return f"receiver lease {self.key[:8]}"


class InboundEvent(models.Model):
    """One received message, stored before the platform gets its acknowledgement."""

    class Kind(models.TextChoices):
        MESSAGE = "message", _("message")
        COMMAND = "command", _("command")
        PAIRING = "pairing", _("about linking")  # decided at receipt, its text not stored

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
    edited = models.TextField(blank=True)  # the new text of an edit that arrived during the turn
    status = models.CharField(max_length=11, choices=Status.choices, default=Status.PENDING)
    starts = models.PositiveSmallIntegerField(
        default=0
    )  # of turns, counted before the agent is called, so that a crash counts
    failures = models.PositiveSmallIntegerField(default=0)  # of the agent, told to the person
    received_at = models.DateTimeField(default=clock.now, editable=False)
    # The platform's time, of a message that was read back from history. It decides nothing but what is late.
    sent_at = models.DateTimeField(null=True, editable=False)
    # Empty for an event that may be answered at once. Later for words that more may belong to, and after a failure.
    ready_at = models.DateTimeField(null=True, editable=False)
    done_at = models.DateTimeField(null=True, editable=False)  # empty only while the event waits
    emptied_at = models.DateTimeField(null=True, editable=False)  # when retention deleted its text
    dismissed_at = models.DateTimeField(null=True, editable=False)  # when an operator dismissed it (see dead_letters)
    # Why it has no answer, or none yet, in words for operators. It quotes nothing that a person or a server wrote.
    reason = models.CharField(max_length=300, blank=True, default="", db_default="")
    # What the model used for the answer, where it says so: of a turn's events, on the first.
    model = models.CharField(max_length=100, blank=True, default="", db_default="")
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)

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
            # dead_letters
            models.Index(fields=["id"], condition=Q(status__in=["quarantined", "given up"]), name="events_given_up"),
            # inbox.edit
            models.Index(fields=["platform", "chat_id", "message_id"], name="events_by_message"),
        ]

    def __str__(self) -> str:
        return f"{self.platform} {self.native_key}"

    @property
    def asked_at(self) -> datetime:
        """When the person wrote the message, as far as that is known."""
        return self.sent_at or self.received_at


class Watermark(models.Model):
    """How far a private chat is received, on platforms where bots can read history.

    position: a number in the platform's own order of messages, up to which none is missing. since: no earlier message
    is ever read back.
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
    """One entry of a conversation's history. Entries are never moved: a query decides who may read them.

    said_at: the time of receipt; a reply has that of its message, so that a turn is on one side of a link. written_at:
    differs only for a reply, which may repeat what its window held at that time.
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
    # `entries_of_an_author` begins with it.
    author = models.ForeignKey(
        PlatformAccount, null=True, on_delete=models.PROTECT, related_name="entries", db_index=False
    )
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
    # People read it, agents never do: a message that the model's provider refuses, and an apology for a failure.
    is_withheld = models.BooleanField(default=False, db_default=False)

    class Meta:
        verbose_name = _("history entry")
        verbose_name_plural = _("history entries")
        constraints = [
            models.UniqueConstraint(
                fields=["event", "role"], condition=Q(event__isnull=False), name="event_has_one_entry_a_role"
            )
        ]
        indexes = [
            models.Index(fields=["conversation", "said_at", "id"], name="entries_in_order"),
            # window.groups_of and window.own_words; forgetting
            models.Index(
                fields=["author", "conversation", "said_at"],
                condition=Q(author__isnull=False),
                name="entries_of_an_author",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} in {self.conversation_id}"


def new_nonce() -> str:
    """A name of a delivery for all its attempts: 24 characters, as Discord accepts 25."""
    return secrets.token_hex(12)


class OutboundDelivery(models.Model):
    """One outgoing message, at most as long as its platform accepts. Each address gets its messages in order."""

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
    # A notice about linking: its text is rendered from these when it is sent, so that no code is stored. Of a text
    # without an account, the template says which buttons it has. A later part of a long text has its number in
    # `subject`.
    template = models.CharField(max_length=20, blank=True)
    subject = models.JSONField(default=dict, blank=True)
    account = models.ForeignKey(PlatformAccount, null=True, on_delete=models.CASCADE, related_name="deliveries")
    nonce = models.CharField(max_length=25, default=new_nonce, unique=True, editable=False)
    event = models.ForeignKey(InboundEvent, null=True, on_delete=models.SET_NULL, related_name="deliveries")
    entry = models.ForeignKey(HistoryEntry, null=True, on_delete=models.SET_NULL, related_name="deliveries")
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    # An attempt ended without an answer.
    possibly_sent = models.BooleanField(default=False, db_column="may_be_repeat")
    owner = models.CharField(max_length=40, blank=True)
    lease_until = models.DateTimeField(default=clock.EPOCH)
    not_before = models.DateTimeField(default=clock.EPOCH)
    message_id = models.CharField(max_length=190, blank=True)
    reason = models.CharField(max_length=300, blank=True)  # of the last failure
    created_at = models.DateTimeField(default=clock.now, editable=False)
    settled_at = models.DateTimeField(null=True, editable=False)  # sent, or given up
    dismissed_at = models.DateTimeField(null=True, editable=False)  # as that of an event
    # No columns, known from the claim on: the platform's id of the message that this one replies to, the name of its
    # author, and when it was claimed, by the database's clock.
    reply_to = asker = ""
    claimed_at: datetime | None = None

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
            # outbox.queue.claim: due deliveries, and earlier ones at the same address
            models.Index(fields=["platform", "id"], condition=Q(settled_at=None), name="deliveries_open_by_platform"),
            models.Index(
                fields=["platform", "chat_id", "thread_id", "id"],
                condition=Q(settled_at=None),
                name="deliveries_open_at_an_address",
            ),
            # dead_letters
            models.Index(fields=["id"], condition=Q(status="dead"), name="deliveries_dead"),
            # privacy.retention
            models.Index(fields=["settled_at"], condition=Q(settled_at__isnull=False), name="deliveries_by_end"),
            # privacy.forgetting
            models.Index(fields=["platform", "chat_id"], name="deliveries_by_address"),
        ]

    def __str__(self) -> str:
        return f"{self.status} to {self.platform} {self.chat_id}"


def new_request_nonce() -> bytes:
    """A nonce for the number of one request, which the id alone must not reveal."""
    return keys.new_nonce()


class ForgetRequest(models.Model):
    """A request to delete accounts. Its number is computed from `id` and `nonce`, and never stored."""

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
    # ids of the accounts to delete, as they were shown with the number; later only fewer, as links end
    accounts = models.JSONField(default=list)
    browser = models.UUIDField(null=True, editable=False)  # where the number is typed; empty for the chat
    state = models.CharField(max_length=9, choices=State.choices, default=State.ASKED)
    tries = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    expires_at = models.DateTimeField(
        editable=False
    )  # of the number; after the deletion, when the files may be cleaned
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
    """The keyed hash of a deleted message, which keeps it deleted if its platform delivers it again."""

    key_hash = models.CharField(max_length=64, primary_key=True)
    forgotten_at = models.DateTimeField(default=clock.now, editable=False, db_index=True)

    class Meta:
        verbose_name = _("forgotten message")

    def __str__(self) -> str:
        return self.key_hash[:8]


class Counter(models.Model):
    """A counter of all processes together; see counters.py."""

    what = models.CharField(max_length=30)
    platform = models.CharField(max_length=40)
    count = models.PositiveBigIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "sessions_app_tally"
        verbose_name = _("counter")
        constraints = [models.UniqueConstraint(fields=["what", "platform"], name="tally_is_kept_once")]

    def __str__(self) -> str:
        return f"{self.what} {self.platform}: {self.count}"


class Duty(models.Model):
    """When a periodic duty last succeeded and last failed; see duties.py."""

    name = models.CharField(max_length=60, primary_key=True)
    succeeded_at = models.DateTimeField(null=True, editable=False)
    failed_at = models.DateTimeField(null=True, editable=False)
    error = models.CharField(max_length=100, blank=True)  # the class of the last failure's exception

    class Meta:
        verbose_name = _("duty")
        verbose_name_plural = _("duties")

    def __str__(self) -> str:
        return self.name
