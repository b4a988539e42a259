"""The agent that needs no model: it recalls what a person said, out of the history of the turn. A demonstration."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sessions_app.agents.base import run_in_thread
from sessions_app.messages import Reply, Turn

NOTICE = "(No AI model is configured, so I only recall what you tell me.)"
HELP = "I can recall what you tell me: say “My favourite colour is octarine.”, then ask “What's my favourite colour?”"
MAX_READ = 4_000  # characters read of one message; more would only be slow

_VERBS = "like|love|live|work|have|own|need|want|prefer|hate|speak|play|study"
_BREAK = re.compile(r"(?<=[.!?]) | and (?=(?:i|i'm|my) )", re.IGNORECASE)
_OPENING = re.compile(r"\A(?:(?:hi|hello|hey|well|so|okay|ok|yes|also|please|remember|that|and)[,!]* )*", re.IGNORECASE)
_ASKING = re.compile(r"(?:whats?|whos?|where|when|which|how|do|did|can|could|tell|remind|is|are|am)\b", re.IGNORECASE)
_CONTRACTED = re.compile(r"\bmy name's ", re.IGNORECASE)
_MINE = re.compile(r"\bmy (?P<key>.{1,80}?) (?:is|are|was|were) (?P<value>.+)", re.IGNORECASE)
_DOING = re.compile(rf"i (?:really |also |now )?(?P<key>{_VERBS}) (?:in |at |for )?(?P<value>.+)", re.IGNORECASE)
_BEING = re.compile(r"(?:i am|i'?m|call me) (?P<value>.+)", re.IGNORECASE)
_MOODS = {"fine", "good", "ok", "okay", "tired", "sorry", "here", "back", "not", "sure", "happy", "sad", "busy", "late"}


class RecallAgent:
    """Answers "What's my favourite colour?" from "My favourite colour is octarine.", and says once that it is no model.

    A message that is nothing but the name of one of the tools is answered by that tool, if it needs no arguments.
    """

    def __init__(self, tools: Sequence[Callable[..., Any]] = ()) -> None:
        self._tools = tools

    async def reply(self, turn: Turn) -> Reply:
        tool = self._tool_named(turn.text)
        answer = _answer(turn) if tool is None else str(await _called(tool))
        told = any(line.role == "assistant" and NOTICE in line.text for line in turn.history)
        return Reply(answer if told else f"{answer}\n\n{NOTICE}")

    def _tool_named(self, text: str) -> Callable[..., Any] | None:
        name = re.sub(r"\W+", "_", text[:MAX_READ].casefold()).strip("_")
        return next((tool for tool in self._tools if name and getattr(tool, "__name__", "").casefold() == name), None)


async def _called(tool: Callable[..., Any]) -> object:
    parameters = inspect.signature(tool).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        return f"I cannot use {tool.__name__} without a model: it needs {', '.join(p.name for p in needed)}."
    return await tool() if inspect.iscoroutinefunction(tool) else await run_in_thread(tool)


def _answer(turn: Turn) -> str:
    questions = [sentence for sentence in _sentences(turn.text) if _is_question(sentence)]
    if not questions:
        return "Got it!" if _facts([turn.text]) else HELP
    asked = _fold(questions[-1])
    if re.search(r"\b(?:last reminder|(?:did|have) you (?:tell|told|send|sent|remind))", asked):
        return _last_mirror(turn)
    if not (key := _key_of(asked)):
        return HELP
    said = (line.text for line in turn.history if line.role == "user" and line.author in ("", turn.context.user_name))
    known = _facts([*said, turn.text])
    return _as_sentence(known[key]) if key in known else "You have not told me that yet."


def _last_mirror(turn: Turn) -> str:
    sent = (line.text for line in reversed(turn.history) if line.role == "assistant" and line.source == "mirror")
    return next(sent, "I have sent you nothing but my answers.")


def _sentences(text: str) -> Iterator[str]:
    straight = text[:MAX_READ].replace("\u2019", "'").replace("\u2018", "'").replace("\u02bc", "'")
    for line in straight.splitlines():
        for sentence in _BREAK.split(" ".join(line.split())):
            if stripped := _OPENING.sub("", sentence):
                yield _CONTRACTED.sub("my name is ", stripped)


def _is_question(sentence: str) -> bool:
    return sentence.endswith("?") or _ASKING.match(sentence) is not None


def _fold(words: str) -> str:
    """Words as they are compared: no case, no punctuation, and one spelling where the British and Americans differ."""
    plain = re.sub(r"[^\w ]", "", unicodedata.normalize("NFKC", words).casefold())
    return " ".join(plain.replace("favourite", "favorite").replace("colour", "color").split())


def _key_of(asked: str) -> str:
    """What a folded question is about: `name`, `favorite color`, `live`; empty if that is not the person."""
    if "who am i" in asked:
        return "name"
    if did := re.search(rf"\b(?:do|did) i (?:really |also |now )?({_VERBS})\b", asked):
        return did[1]
    mine = re.search(r"\bmy (.+)", asked)
    return re.sub(r"(?: (?:is|are|was|were|again|please|now))+$", "", mine[1]) if mine else ""


def _facts(texts: Iterable[str]) -> dict[str, str]:
    """What was stated, by folded key; the latest statement wins."""
    facts: dict[str, str] = {}
    for text in texts:
        for sentence in _sentences(text):
            if not _is_question(sentence):
                facts.update(_stated(sentence.rstrip(" .!\"'")))
    return facts


def _stated(sentence: str) -> Iterator[tuple[str, str]]:
    if mine := _MINE.search(sentence):
        yield _fold(mine["key"]), mine["value"]
    if doing := _DOING.match(sentence):
        yield doing["key"].casefold(), doing["value"]
    if (being := _BEING.match(sentence)) and (name := _name_in(being["value"], sentence)):
        yield "name", name


def _name_in(value: str, sentence: str) -> str:
    """A name in "I'm Alice" and none in "I'm tired": a name has a capital, unless the person writes none at all."""
    words = re.split(r",| from ", value, maxsplit=1)[0].split()
    if not 1 <= len(words) <= 3 or words[0].casefold() in _MOODS:
        return ""
    is_name = not words[0][0].islower() or (sentence.islower() and len(words) == 1)
    return " ".join(words) if is_name else ""


def _as_sentence(value: str) -> str:
    told = re.sub(r"\bmy\b", "your", value)
    return f"{told[:1].upper()}{told[1:]}."
