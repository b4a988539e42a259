"""Many people write numbered messages at once: some wait for the answer, some go on, and some are told of twice."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from time import monotonic, time

from adapters.playground.server import Person, Said
from tests.faults.judge import Message
from tests.faults.population import Population
from tests.journeys.running import PLATFORMS, person

PATIENCE = 5.0  # seconds that a person waits for an answer before going on
FAREWELL = 90_000  # numbers from here on close a run


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody's account, and the lane that it is in: the person where it is linked, else the account itself."""

    platform: str
    person: Person
    chat: str
    lane: str


def crowd(population: Population, lanes: int, *, linked: int = 0) -> list[Account]:
    """Accounts in so many lanes, by turns on each platform; in the first `linked` lanes one on every platform."""
    accounts = []
    for number in range(lanes):
        platforms = PLATFORMS if number < linked else (PLATFORMS[number % len(PLATFORMS)],)
        accounts += [account(population, platform, number) for platform in platforms]
    return accounts


def account(population: Population, platform: str, number: int) -> Account:
    """The account of the person with this number."""
    who = person(platform, number, "Alice")
    return Account(platform, who, population.servers[platform].private_chat(who), f"lane-{number}")


@dataclass
class Load:
    """`count` messages, from all lanes alike. What was said is in `said`, in the order of saying.

    again: the share that is told to the bot once more. waits: the share whose answer is awaited before going on.
    copies: how often each message is told beyond the first time. a_second: at most so many messages, 0 for no limit.
    """

    population: Population
    accounts: Sequence[Account]
    count: int
    seed: int
    again: float = 0.05
    waits: float = 0.5
    copies: int = 0
    a_second: float = 0.0
    said: list[Message] = field(default_factory=list)
    answered: dict[int, float] = field(default_factory=dict)  # number -> seconds until its first answer

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._next = monotonic()
        self._progress = threading.Condition()
        self._answers: dict[int, asyncio.Event] = {}
        self._began: dict[int, float] = {}
        self.population.listeners.append(self._note_reply)

    async def run(self) -> None:
        """Let everybody write."""
        lanes: dict[str, list[Account]] = {}
        for one in self.accounts:
            lanes.setdefault(one.lane, []).append(one)
        shares = [len(range(place, self.count, len(lanes))) for place in range(len(lanes))]
        async with asyncio.TaskGroup() as living:
            for (lane, accounts), share in zip(lanes.items(), shares, strict=True):
                living.create_task(self._live(accounts, share, Random(f"{self.seed} {lane}")))

    async def say(self, number: int, *, by: Account | None = None, words: str = "") -> Message:
        """An account, else the first one, writes the message with this number, and these words behind it."""
        return await self._say(by or self.accounts[0], number, words)

    async def _live(self, accounts: Sequence[Account], share: int, dice: Random) -> None:
        for _ in range(share):
            await self._keep_pace()
            message = await self._say(dice.choice(accounts), next(self._numbers))
            for _copy in range(self.copies + (dice.random() < self.again)):
                await self.population.servers[message.platform].redeliver(message.id)
            if dice.random() < self.waits:
                await self.answer_to(message.number)

    async def _keep_pace(self) -> None:
        """The moments are fixed from the beginning, so that a slow answer slows nobody else down."""
        if self.a_second:
            self._next = max(self._next + 1 / self.a_second, monotonic() - 1.0)
            await asyncio.sleep(self._next - monotonic())

    async def _say(self, by: Account, number: int, words: str = "") -> Message:
        self._answers[number] = asyncio.Event()
        self._began[number] = monotonic()
        said_at = time()
        message_id = await self.population.servers[by.platform].say(by.person, f"m{number:05d} {words}".strip())
        message = Message(number, by.platform, by.person.id, by.chat, by.lane, said_at, message_id)
        with self._progress:
            self.said.append(message)
            self._progress.notify_all()
        return message

    async def answer_to(self, number: int, within: float = PATIENCE) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._answers[number].wait(), within)
        return self._answers[number].is_set()

    def _note_reply(self, _platform: str, said: Said) -> None:
        for number in map(int, re.findall(r"\bm(\d{5})\b", said.text)):
            if number in self._answers and not self._answers[number].is_set():
                self._answers[number].set()
                self.answered[number] = monotonic() - self._began[number]

    def reached(self, count: int, within: float = 300.0) -> None:
        """Wait until so many messages were said."""
        with self._progress:
            assert self._progress.wait_for(lambda: len(self.said) >= count, within), "the load stands still"

    async def farewell(self, round_: int = 0, within: float = 60.0) -> bool:
        """A stranger's word on each platform. Its answer proves that what was told before it has been taken in."""
        numbers = []
        for place, platform in enumerate(PLATFORMS):
            numbers.append(FAREWELL + 10 * round_ + place)
            await self._say(account(self.population, platform, numbers[-1]), numbers[-1])
        return all([await self.answer_to(number, within) for number in numbers])


def moments(dice: Random, count: int, most: int) -> Iterator[int]:
    """So many places in a load of `most` messages, in order, by chance."""
    return iter(sorted(dice.sample(range(1, most), count)))
