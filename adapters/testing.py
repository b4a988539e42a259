"""The contract of adapters as tests: subclass `AdapterContract` in your own tests, and pytest runs it on your platform.

```python
@pytest.mark.asyncio
class TestMatrix(AdapterContract):
    @asynccontextmanager
    async def platform(self) -> AsyncIterator[PlatformUnderTest]:
        ...  # start the platform, or a local server in its place, and yield what drives it
```

`RecordingInbox` and `running` serve tests of your own. Nothing here needs pytest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from adapters.aio import is_set_within
from adapters.platform import Platform, is_name
from adapters.protocols import DeliveryError, HidesTyping, Inbox, NeedsConfiguration, PlatformAdapter, ShowsTyping
from sessions_app.messages import Address, InboundMessage, MessageEdit, OutgoingMessage
from sessions_app.receiving.watermarks import Mark

PATIENCE = 60.0  # seconds until what must happen counts as never, on a machine that does much else
PAUSE = 0.05  # seconds before an adapter that failed runs again


class StorageError(Exception):
    """What a RecordingInbox raises in place of storing."""


class RecordingInbox:
    """Fulfils Inbox in memory. The next `fail_next` messages are refused with StorageError instead of being kept.

    What was handed in together with a refused message and is of the same chat is refused too.
    """

    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []
        self.edits: list[MessageEdit] = []
        self.known: dict[str, Mark] = {}  # how far each private chat was taken in
        self.connected_event = asyncio.Event()
        self.found_at: tuple[str, str] | None = None  # name and address of the bot
        self.fail_next = 0
        self.failed = asyncio.Event()
        self._refusing: set[str] = set()  # chats
        self._changed = asyncio.Condition()

    def connected(self, *, name: str = "", url: str = "") -> None:
        self.found_at = (name, url)
        self.connected_event.set()

    async def marks(self) -> Mapping[str, Mark]:
        return dict(self.known)

    async def receive(self, message: InboundMessage) -> None:
        if self.fail_next > 0:
            self.fail_next -= 1
            self.failed.set()
            self._refusing.add(message.address.chat_id)
            # After the tasks that are to begin now.
            asyncio.get_running_loop().call_soon(self._refusing.discard, message.address.chat_id)
        if message.address.chat_id in self._refusing:
            raise StorageError("the disk is full")
        self.messages.append(message)
        if message.is_private and message.position is not None:
            self.known[message.address.chat_id] = Mark(message.position)
        await self._announce()

    async def edit(self, edit: MessageEdit) -> None:
        self.edits.append(edit)
        await self._announce()

    async def wait_for(self, count: int) -> list[InboundMessage]:
        """All messages, once there are `count` of them. Raises TimeoutError."""
        await self._until(lambda: len(self.messages) >= count)
        return self.messages

    async def wait_for_text(self, text: str) -> InboundMessage:
        """The first message with this text, once it is there. Raises TimeoutError."""
        await self._until(lambda: any(message.text == text for message in self.messages))
        return next(message for message in self.messages if message.text == text)

    async def wait_for_edits(self, count: int) -> list[MessageEdit]:
        """All edits, once there are `count` of them. Raises TimeoutError."""
        await self._until(lambda: len(self.edits) >= count)
        return self.edits

    async def _until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(happened)

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@dataclass(slots=True)
class Run:
    """One `adapter.run(...)` on its way. `ending` raises what the run raised."""

    adapter: PlatformAdapter
    inbox: RecordingInbox
    task: asyncio.Task[None]
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def ending(self) -> None:
        """Wait for the run to end by itself."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)


@asynccontextmanager
async def running(adapter: PlatformAdapter, inbox: RecordingInbox | None = None) -> AsyncIterator[Run]:
    """A connected adapter, stopped at the end. A run that ends before it is connected raises here."""
    inbox, stop = inbox or RecordingInbox(), asyncio.Event()
    run = Run(adapter, inbox, asyncio.create_task(adapter.run(inbox, stop)), stop)
    connecting = asyncio.create_task(inbox.connected_event.wait())
    try:
        await asyncio.wait({run.task, connecting}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if run.task.done():
            run.task.result()
        yield run
    finally:
        connecting.cancel()
        stop.set()
        await asyncio.wait({run.task}, timeout=PATIENCE)
        with suppress(asyncio.CancelledError):
            if run.task.cancel():
                await run.task
                raise AssertionError("the adapter did not stop")


# --- The contract


class PlatformUnderTest(Protocol):
    """The platform under test, up and running, with one person who has a private chat with the bot."""

    description: Platform
    user_id: str  # of the person

    @property
    def chat_id(self) -> str:
        """The id of the private chat."""
        ...

    def settings(self) -> Mapping[str, str]:
        """The settings that lead the adapter here, with credentials that the platform takes."""
        ...

    def refused_settings(self) -> Mapping[str, str]:
        """The same with credentials that the platform refuses."""
        ...

    async def say(self, text: str) -> str:
        """The person writes to the bot. The platform's id of the message."""
        ...

    async def tell_again(self, message_id: str) -> None:
        """Tell the bot of a message once more, as the platform does when in doubt."""
        ...

    async def answers(self, count: int) -> list[str]:
        """What the bot said in the chat, once it is at least `count` messages."""
        ...

    def refuse_next(self, *, permanent: bool) -> None:
        """Let the next message of the bot be refused: for good, as in a chat that is closed, or only now."""


class AdapterContract:
    """What every adapter owes. `platform` is yours; each test gets a fresh one."""

    def platform(self) -> AbstractAsyncContextManager[PlatformUnderTest]:
        """Start the platform, and stop it at the end."""
        raise NotImplementedError

    async def test_it_is_what_its_description_says(self) -> None:
        async with self.platform() as platform:
            description, adapter = platform.description, adapter_of(platform)

            ensure(isinstance(adapter, PlatformAdapter), "the adapter lacks something of PlatformAdapter")
            ensure(is_name(description.name), "the name is no platform name")
            ensure(adapter.platform == description.name, "adapter and description differ in the name")
            ensure(adapter.text_limit == description.text_limit > 0, "adapter and description differ in the text limit")

    async def test_it_hands_in_what_a_person_writes(self) -> None:
        async with self.platform() as platform, running(adapter_of(platform)) as run:
            message_id = await platform.say("Good morning")
            message = await run.inbox.wait_for_text("Good morning")

            place = Address(platform.description.name, platform.chat_id)
            ensure(message.address == place, f"the address is {message.address}, not {place}")
            ensure(message.sender.user_id == platform.user_id, "the sender's id is not the person's")
            ensure(message.message_id == message_id, "the message's id is not the platform's")
            ensure(message.is_private and message.is_addressed, "a private message counts as one in a group")
            ensure(message.native_key, "the message has no native key")

    async def test_it_gives_each_message_one_key_however_often_it_is_told(self) -> None:
        async with self.platform() as platform, running(adapter_of(platform)) as run:
            first = await platform.say("first")
            await run.inbox.wait_for_text("first")
            await platform.tell_again(first)
            await platform.say("second")
            second = await run.inbox.wait_for_text("second")

            keys = {message.native_key for message in run.inbox.messages if message.text == "first"}
            ensure(len(keys) == 1, f"one message has the keys {keys}")
            ensure(second.native_key not in keys, "two messages have the same key")

    async def test_it_acknowledges_only_what_is_stored(self) -> None:
        """What the inbox refuses comes again, to this run or to the next."""
        async with self.platform() as platform:
            inbox, stop = RecordingInbox(), asyncio.Event()
            inbox.fail_next = 1
            runs = asyncio.create_task(_run_again_and_again(adapter_of(platform), inbox, stop))
            try:
                async with asyncio.timeout(PATIENCE):
                    await inbox.connected_event.wait()
                await platform.say("Keep this")
                await inbox.wait_for_text("Keep this")
            finally:
                stop.set()
                await runs
            ensure(inbox.failed.is_set(), "the inbox was not asked a first time")

    async def test_it_sends_and_says_under_which_id(self) -> None:
        async with self.platform() as platform, running(adapter_of(platform)) as run:
            await platform.say("hello")
            await run.inbox.wait_for_text("hello")
            ids = [await run.adapter.send(to(platform, text, nonce=f"n-{text}")) for text in ("one", "two")]

            ensure(all(ids) and len(set(ids)) == len(ids), f"the ids of two messages are {ids}")
            ensure(await platform.answers(2) == ["one", "two"], "what was sent is not what stands in the chat")

    async def test_it_sends_a_text_as_long_as_its_limit_in_one(self) -> None:
        async with self.platform() as platform, running(adapter_of(platform)) as run:
            await platform.say("hello")
            await run.inbox.wait_for_text("hello")
            text = "x" * run.adapter.text_limit
            await run.adapter.send(to(platform, text))

            ensure(await platform.answers(1) == [text], "a text of the limit's length does not arrive whole")

    async def test_it_sends_an_answer_whether_the_question_is_still_there_or_not(self) -> None:
        async with self.platform() as platform, running(adapter_of(platform)) as run:
            question = await platform.say("hello")
            await run.inbox.wait_for_text("hello")
            await run.adapter.send(to(platform, "hi", nonce="n-1", reply_to=question))
            try:
                await run.adapter.send(to(platform, "bye", nonce="n-2", reply_to=f"{question}0"))
            except DeliveryError as failure:
                raise AssertionError(f"an answer to a message that is gone is not sent: {failure}") from None

            ensure(await platform.answers(2) == ["hi", "bye"], "an answer to a message does not arrive as it is")

    async def test_it_says_of_a_refused_message_whether_another_attempt_can_help(self) -> None:
        async with self.platform() as platform, running(adapter_of(platform)) as run:
            await platform.say("hello")
            await run.inbox.wait_for_text("hello")
            platform.refuse_next(permanent=False)
            failure = await failure_of(run.adapter, to(platform, "now", nonce="n-1"))
            ensure(not failure.permanent, "a failure that passes counts as permanent")
            platform.refuse_next(permanent=True)
            failure = await failure_of(run.adapter, to(platform, "never", nonce="n-2"))
            ensure(failure.permanent, "a refusal for good does not count as permanent")

    async def test_it_shows_a_typing_sign_that_says_nothing(self) -> None:
        """Only of an adapter that fulfils `ShowsTyping`."""
        async with self.platform() as platform:
            adapter = adapter_of(platform)
            if not isinstance(adapter, ShowsTyping):
                return
            ensure(adapter.typing_seconds > 0, "the sign would be shown again without a pause")
            calls = [adapter.show_typing, *([adapter.hide_typing] if isinstance(adapter, HidesTyping) else [])]
            place, nowhere = to(platform, "").address, Address(platform.description.name, "nowhere", "nowhere")
            await _failures_of_typing(calls, place)  # before it is connected
            async with running(adapter) as run:
                await platform.say("hello")
                await run.inbox.wait_for_text("hello")
                ensure(not await _failures_of_typing(calls, place), "the sign is refused where a person has written")
                await _failures_of_typing(calls, nowhere)
                await adapter.send(to(platform, "one"))
                ensure(await platform.answers(1) == ["one"], "the sign is a message, or keeps one away")

    async def test_it_needs_configuration_where_the_credentials_are_refused(self) -> None:
        async with self.platform() as platform:
            inbox = RecordingInbox()
            try:
                async with asyncio.timeout(PATIENCE):
                    await adapter_of(platform, platform.refused_settings()).run(inbox, asyncio.Event())
            except NeedsConfiguration as refusal:
                ensure(str(refusal), "the refusal does not say what to set")
            else:
                raise AssertionError("the run ends without NeedsConfiguration")
            ensure(not inbox.connected_event.is_set(), "it counts as connected with refused credentials")

    async def test_it_ends_when_it_is_stopped_and_can_run_again(self) -> None:
        async with self.platform() as platform:
            adapter = adapter_of(platform)
            failure = await failure_of(adapter, to(platform, "too soon"))
            ensure(not failure.permanent, "what is sent before it is connected counts as undeliverable")
            async with running(adapter) as run:
                run.stop.set()
                await run.ending()
            failure = await failure_of(adapter, to(platform, "too late"))
            ensure(not failure.permanent, "what is sent after it has ended counts as undeliverable")
            async with running(adapter) as run:
                await platform.say("again")
                await run.inbox.wait_for_text("again")


def ensure(holds: object, problem: str) -> None:
    """Raises AssertionError with the problem."""
    if not holds:
        raise AssertionError(problem)


def adapter_of(platform: PlatformUnderTest, settings: Mapping[str, str] | None = None) -> PlatformAdapter:
    """A fresh adapter, as BotOS makes it of the settings."""
    values = platform.settings() if settings is None else settings
    description = platform.description
    return description.build(description.config(lambda name: values.get(name, "")))


def to(platform: PlatformUnderTest, text: str, *, nonce: str = "n-1", reply_to: str = "") -> OutgoingMessage:
    """A message to the private chat."""
    return OutgoingMessage(Address(platform.description.name, platform.chat_id), text, nonce, reply_to=reply_to)


async def failure_of(adapter: PlatformAdapter, message: OutgoingMessage) -> DeliveryError:
    """What sending the message raises. Raises AssertionError if it is sent."""
    try:
        async with asyncio.timeout(PATIENCE):
            await adapter.send(message)
    except DeliveryError as failure:
        return failure
    raise AssertionError("the message was sent")


async def _failures_of_typing(calls: Iterable[Callable[[Address], Awaitable[None]]], address: Address) -> list[str]:
    """What the calls say that failed. Raises whatever is no DeliveryError."""
    failures = []
    for call in calls:
        try:
            async with asyncio.timeout(PATIENCE):
                await call(address)
        except DeliveryError as failure:
            failures.append(str(failure))
    return failures


async def _run_again_and_again(adapter: PlatformAdapter, inbox: Inbox, stop: asyncio.Event) -> None:
    """As the supervisor does: a run that fails is followed by the next."""
    while not stop.is_set():
        try:
            await adapter.run(inbox, stop)
        except NeedsConfiguration:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the platform must tell of the message again
            await is_set_within(stop, PAUSE)
