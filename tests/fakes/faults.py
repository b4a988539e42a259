"""Faults on demand: what a local platform server does wrong next."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from random import Random

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest


@dataclass(slots=True)
class Fault:
    """One planned failure of calls whose method name matches `method` (a shell pattern), for the next `times` calls.

    status: HTTP status to answer with (401, 409, 429, 500...), 0 for none. retry_after: seconds, with a 429.
    lose_response: carry the call out, then break the connection instead of answering (a timeout after accept).
    """

    method: str
    status: int = 0
    retry_after: float = 0.0
    lose_response: bool = False
    times: int = 1


@dataclass(slots=True)
class FaultPlan:
    """The failures to come, in order; `outage` refuses everything until it is False again.

    Behind the planned ones come those by chance: `chances` are pairs of a probability and a failure.
    """

    outage: bool = False
    planned: list[Fault] = field(default_factory=list)
    chances: list[tuple[float, Fault]] = field(default_factory=list)
    dice: Random = field(default_factory=Random)

    def inject(
        self, method: str, *, status: int = 0, retry_after: float = 0.0, lose_response: bool = False, times: int = 1
    ) -> None:
        """Plan a failure of the next `times` calls of `method`."""
        self.planned.append(Fault(method, status, retry_after, lose_response, times))

    def expect(
        self, method: str, *, rate: float, status: int = 0, retry_after: float = 0.0, lose_response: bool = False
    ) -> None:
        """Let calls of `method` fail by chance, until `chances` is emptied. `rate` is between 0 and 1."""
        self.chances.append((rate, Fault(method, status, retry_after, lose_response)))

    def take(self, method: str) -> Fault | None:
        """The failure that this call must show, counted as shown; None for an honest answer."""
        if self.outage:
            return Fault(method, status=503)
        for fault in self.planned:
            if fault.times > 0 and fnmatch.fnmatchcase(method, fault.method):
                fault.times -= 1
                return fault
        return self._by_chance(method)

    def _by_chance(self, method: str) -> Fault | None:
        for rate, fault in self.chances:
            if fnmatch.fnmatchcase(method, fault.method) and self.dice.random() < rate:
                return fault
        return None


class LostResponse(web.Response):
    """Breaks the connection in place of an answer."""

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError
