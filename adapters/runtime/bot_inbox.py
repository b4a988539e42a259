"""The inbox that adapters call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from adapters.runtime.supervisor import Supervisor
from identity.models import BotProfile
from identity.resolvers import Resolves
from sessions_app import db
from sessions_app.messages import InboundMessage, MessageEdit, Unacceptable
from sessions_app.receiver import Receiver
from sessions_app.receiving import watermarks

log = logging.getLogger(__name__)


class BotInbox:
    """Passes the messages of one bot's adapter to the inbox of the application."""

    def __init__(
        self,
        platform: str,
        resolver: Resolves | None,
        supervisor: Supervisor,
        *,
        on_turn: Callable[[int], object],
        on_outgoing: Callable[[], object],
        on_waiting: Callable[[int, InboundMessage], object],
    ) -> None:
        self._platform = platform
        self._supervisor = supervisor
        self._receiver = Receiver(resolver, on_turn=on_turn, on_outgoing=on_outgoing, on_waiting=on_waiting)

    def connected(self, *, name: str = "", url: str = "") -> None:
        self._supervisor.connected()
        if name or url:
            db.call_soon(_remember_bot, self._platform, name, url)

    async def marks(self) -> Mapping[str, watermarks.Mark]:
        return await db.call(watermarks.known, self._platform)

    async def receive(self, message: InboundMessage) -> None:
        try:
            await self._receiver.receive(message)
        except Unacceptable as error:
            log.warning("%s: a message was refused: %s", self._platform, error)

    async def edit(self, edit: MessageEdit) -> None:
        try:
            await self._receiver.receive(edit)
        except Unacceptable as error:
            log.warning("%s: an edit was refused: %s", self._platform, error)


def _remember_bot(platform: str, name: str, url: str) -> None:
    """Where the bot is found, for people who are told to open it there."""
    try:
        BotProfile.objects.update_or_create(platform=platform, defaults={"name": name[:150], "url": url[:300]})
    except Exception as error:  # noqa: BLE001 - the connection serves without it
        log.warning("%s: where the bot is found was not noted: %s", platform, type(error).__name__)
