"""The playground's page: type and press buttons as somebody on each platform, and see what the bot answers."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from adapters.playground import stage
from adapters.playground.server import Said
from adapters.playground.stage import PERSONAS, Persona, Playground

LONGEST_TEXT = 4000
_TITLES = {"telegram": "Telegram", "discord": "Discord", "slack": "Slack"}


@never_cache
@require_GET
async def page(request: HttpRequest) -> HttpResponse:
    """Three panes, one for each platform."""
    playground, persona = _stage(request), _persona(request.GET.get("as", ""))
    context = {"personas": PERSONAS, "persona": persona, "panes": _panes(playground, persona)}
    return render(request, "playground/page.html", context)


@never_cache
@require_GET
async def chats(request: HttpRequest) -> JsonResponse:
    """What stands in the three chats: a list of `{platform, lines: [{id, author, text, buttons}]}`."""
    panes = _panes(_stage(request), _persona(request.GET.get("as", "")))
    return JsonResponse({"panes": [{key: pane[key] for key in ("platform", "lines")} for pane in panes]})


@require_POST
async def say(request: HttpRequest) -> HttpResponse:
    """Type something as a persona on a platform, as the person would in the app."""
    playground, persona = _stage(request), _persona(request.POST.get("as", ""))
    platform, text = request.POST.get("platform", ""), request.POST.get("text", "").strip()
    if platform not in playground.servers or not text or len(text) > LONGEST_TEXT:
        return HttpResponseBadRequest("There is no such platform, or the text is empty or too long.")
    await playground.say(persona, platform, text)
    return redirect(f"{reverse('playground')}?as={persona.name}#{platform}")


@require_POST
async def press(request: HttpRequest) -> HttpResponse:
    """Press the button with a `command` under the bot's message, as the person would in the app."""
    playground, persona = _stage(request), _persona(request.POST.get("as", ""))
    platform, message_id = request.POST.get("platform", ""), request.POST.get("message", "")
    try:
        await playground.press(persona, platform, message_id, request.POST.get("command", ""))
    except (KeyError, ValueError):
        return HttpResponseBadRequest("There is no such platform or button.")
    return redirect(f"{reverse('playground')}?as={persona.name}#{platform}")


def _stage(request: HttpRequest) -> Playground:
    """The running playground, for this machine only."""
    address = request.META.get("REMOTE_ADDR")
    if not stage.current or not address or not ipaddress.ip_address(address).is_loopback:
        raise Http404("There is no playground here.")
    return stage.current[-1]


def _persona(name: str) -> Persona:
    return next((persona for persona in PERSONAS if persona.name == name), PERSONAS[0])


def _panes(playground: Playground, persona: Persona) -> list[dict[str, Any]]:
    return [
        {"platform": platform, "title": _TITLES[platform], "lines": _lines(playground, persona, platform)}
        for platform in playground.servers
    ]


def _lines(playground: Playground, persona: Persona, platform: str) -> list[dict[str, Any]]:
    return [_line(said) for said in playground.chat(persona, platform)]


def _line(said: Said) -> dict[str, Any]:
    buttons = [{"label": button.label, "command": button.command} for button in said.buttons]
    author = "bot" if said.author_id == "bot" else "me"
    return {"id": said.message_id, "author": author, "text": said.text, "buttons": buttons}
