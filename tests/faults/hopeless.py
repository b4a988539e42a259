"""A person who writes what the agent fails at every time, among ordinary messages."""

from __future__ import annotations

from tests.faults.agents import FAILS, REFUSED
from tests.faults.fault_cluster import FaultCluster, until
from tests.faults.load import account

FIRST = 50_000  # number of this person's messages
TRIED = """
    SELECT COUNT(*) FROM sessions_app_inboundevent
    WHERE text LIKE 'm{number}%' AND (failures > 0 OR done_at IS NOT NULL)
"""
ENDED = "SELECT text, reason FROM sessions_app_inboundevent WHERE text LIKE 'm5%' ORDER BY done_at"


class Hopeless:
    """Writes one message after the other: those that wait together would be one turn."""

    platform = "discord"  # where no answer may come twice

    def __init__(self, place: FaultCluster) -> None:
        self._place = place
        self._account = account(place.population, self.platform, 9999)
        self.said: list[str] = []

    def say(self, words: str = "", *, kills: int | None = None) -> None:
        """Write, and wait until the agent has answered or failed. kills: the process to kill meanwhile."""
        number = FIRST + len(self.said)
        self.said.append(words)
        if words:
            self._place.hopeless.add(number)
        self._place.population.do(self._place.load.say(number, by=self._account, words=words))
        if kills is not None:
            self._place.fleet.kill(kills)
        is_tried = TRIED.format(number=number)
        until(lambda: self._place.database.count(is_tried), 60, f"m{number} was not tried")

    def say_all(self, *, kills: int | None = None) -> None:
        """Write both kinds that the agent fails at, and an ordinary message behind each."""
        for words in (FAILS, "", REFUSED, ""):
            self.say(words, kills=kills if words else None)

    def numbers(self, words: str = "") -> list[int]:
        """The messages with these words; the ordinary ones have none."""
        return [FIRST + nth for nth, said in enumerate(self.said) if said == words]

    def passed(self) -> list[int]:
        """The messages that the agent fails at which the next one has passed: it was answered first."""
        ended = [int(text[1:6]) for text, _ in self._place.database.rows(ENDED)]
        return [number for number in self.numbers(FAILS) if ended.index(number + 1) < ended.index(number)]

    def told(self, words: str) -> int:
        """How often the bot said this."""
        replies = self._place.population.replies()[self.platform, self._account.chat]
        return sum(words in text for text in replies)

    def reasons(self, words: str) -> list[str]:
        """What the rows of the messages with these words say about why they have no answer."""
        return [reason for text, reason in self._place.database.rows(ENDED) if text.endswith(f" {words}")]
