"""The playground's page: type and press buttons as a person on each platform, and see what the bot answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from adapters.playground import reset, story, watching
from adapters.playground.guard import admit
from adapters.playground.server import Said
from adapters.playground.stage import PERSONAS, Persona, Playground
from identity.support import platforms
from sessions_app import db

MAX_TEXT = 20_000  # several messages, as an app cuts it


@never_cache
@require_safe
async def page(request: HttpRequest) -> HttpResponse:
    """A pane for each platform, and one for what the agent is given. The script reads it again and again."""
    playground, persona = admit(request), _persona(request.GET.get("as", ""))
    watched = await db.call(watching.watch, persona)
    seen = request.GET.get("see", "")
    seen = (
        seen if seen in playground.servers else playground.last_used.get(persona.name, next(iter(playground.servers)))
    )
    context = {
        "personas": PERSONAS,
        "persona": persona,
        "panes": _panes(playground, persona),
        "views": [(one, platforms.title(one)) for one in playground.servers],
        "seen": seen,
        "window": [(line, platforms.title(line.platform)) for line in watched.windows[seen]],
        "linked": [platforms.title(one) for one in watched.linked],
        "max_text": MAX_TEXT,
        "obstacle": await db.call(reset.obstacle),
        **_story(playground, request),
    }
    return render(request, "playground/page.html", context)


def _story(playground: Playground, request: HttpRequest) -> dict[str, Any]:
    return {
        "step": story.standing(playground),
        "told": playground.told,
        "steps": len(story.STEPS),
        "is_over": story.is_over(playground),
        "is_playing": "play" in request.GET,
    }


@never_cache
@require_safe
async def chats(request: HttpRequest) -> JsonResponse:
    """What stands in the chats: a list of `{platform, lines: [{id, author, text, buttons, reply_to}]}`, for
    programs."""
    playground, persona = admit(request), _persona(request.GET.get("as", ""))
    panes = [
        {"platform": platform, "lines": [_told(said) for said in playground.chat(persona, platform)]}
        for platform in playground.servers
    ]
    return JsonResponse({"panes": panes})


@never_cache
@require_POST
async def say(request: HttpRequest) -> HttpResponse:
    """Type something as a persona on a platform, as the person would in the app."""
    playground, persona = admit(request), _persona(request.POST.get("as", ""))
    platform, text = request.POST.get("platform", ""), request.POST.get("text", "").strip()
    if platform not in playground.servers or not text or len(text) > MAX_TEXT:
        return HttpResponseBadRequest("There is no such platform, or the text is empty or too long.")
    await playground.say(persona, platform, text)
    return _back(persona, platform)


@never_cache
@require_POST
async def press(request: HttpRequest) -> HttpResponse:
    """Press a button under the bot's message, as the person would in the app. `pressed`: the id of the message, a
    space, and the button's command.
    """
    playground, persona = admit(request), _persona(request.POST.get("as", ""))
    platform = request.POST.get("platform", "")
    message_id, _space, command = request.POST.get("pressed", "").partition(" ")
    try:
        await playground.press(persona, platform, message_id, command)
    except (KeyError, ValueError):
        return HttpResponseBadRequest("There is no such platform or button.")
    return _back(persona, platform)


@never_cache
@require_POST
async def tell(request: HttpRequest) -> HttpResponse:
    """Begin the story (`act=begin`), as if Alice had never said anything, or play its next step."""
    playground = admit(request)
    try:
        if request.POST.get("act") == "begin" and await db.call(watching.is_known, story.ALICE):
            await _clear(playground)
        await story.go_on(playground)
    except reset.NotOurs as error:
        return _refused(error)
    except story.Stuck:
        reason = _("The bot hasn't answered yet. Try again, or start over.")
        return HttpResponse(reason, status=503, content_type="text/plain")
    return redirect(f"{reverse('playground')}?as={story.ALICE.name}&play=on")


@never_cache
@require_POST
async def start_over(request: HttpRequest) -> HttpResponse:
    """Nobody has said anything."""
    playground = admit(request)
    try:
        await _clear(playground)
    except reset.NotOurs as error:
        return _refused(error)
    return redirect("playground")


async def _clear(playground: Playground) -> None:
    async with playground.telling:
        await db.call(reset.clear)
        playground.forget()


def _refused(error: Exception) -> HttpResponse:
    return HttpResponse(str(error), status=409, content_type="text/plain")


def _back(persona: Persona, platform: str) -> HttpResponse:
    return redirect(f"{reverse('playground')}?as={persona.name}#{platform}")


def _persona(name: str) -> Persona:
    return next((persona for persona in PERSONAS if persona.name.lower() == name.lower()), PERSONAS[0])


@dataclass(frozen=True, slots=True)
class Bubble:
    """A message as it is shown.

    parts: its words, cut so that every other one is a code that can be copied. question: the words that it replies to.
    """

    id: str
    author: str
    parts: tuple[str, ...]
    buttons: tuple[Any, ...]
    question: str = ""


def _panes(playground: Playground, persona: Persona) -> list[dict[str, Any]]:
    panes = []
    for platform in playground.servers:
        chat = playground.chat(persona, platform)
        words = {said.message_id: said.text for said in chat}
        panes.append(
            {
                "platform": platform,
                "title": platforms.title(platform),
                "username": persona.accounts[platform].username,
                "is_typing": playground.is_typing(persona, platform),
                "lines": [_bubble(said, platform, words.get(said.reply_to, "")) for said in chat],
            }
        )
    return panes


def _bubble(said: Said, platform: str, question: str = "") -> Bubble:
    is_bot = said.author_id == "bot"
    # As an app with mark-up does: a backslash takes the meaning from a mark, and is not shown.
    text = re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", said.text) if is_bot and platforms.of(platform).markup else said.text
    parts = re.split(f"({story.SECRET.pattern})", text) if is_bot else [text]
    return Bubble(said.message_id, "bot" if is_bot else "me", tuple(parts), said.buttons, question)


def _told(said: Said) -> dict[str, Any]:
    buttons = [{"label": button.label, "command": button.command} for button in said.buttons]
    author = "bot" if said.author_id == "bot" else "me"
    return {
        "id": said.message_id,
        "author": author,
        "text": said.text,
        "buttons": buttons,
        "reply_to": said.reply_to,
    }
