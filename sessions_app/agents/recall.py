"""An agent without a model, for demonstration: it recalls what a person said, from the history of the turn."""

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
MAX_READ = 4_000  # characters that are read of one message, for speed

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

    If a message is only the name of a tool that needs no arguments, the tool answers it.
    """

    def __init__(self, tools: Sequence[Callable[..., Any]] = ()) -> None:
        self._tools = tools

    async def reply(self, turn: Turn) -> Reply:
        """Answer a turn, with the notice if the history has none."""
        name = re.sub(r"\W+", "_", turn.text[:MAX_READ].casefold()).strip("_")
        tool = next((tool for tool in self._tools if name and getattr(tool, "__name__", "").casefold() == name), None)
        answer = _answer(turn) if tool is None else str(await _result_of(tool))
        has_notice = any(line.role == "assistant" and NOTICE in line.text for line in turn.history)
        return Reply(answer if has_notice else f"{answer}\n\n{NOTICE}")


async def _result_of(tool: Callable[..., Any]) -> object:
    parameters = inspect.signature(tool).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        return f"I cannot use {tool.__name__} without a model: it needs {', '.join(p.name for p in needed)}."
    return await tool() if inspect.iscoroutinefunction(tool) else await run_in_thread(tool)


def _answer(turn: Turn) -> str:
    questions = [sentence for sentence in _sentences(turn.text) if _is_question(sentence)]
    if not questions:
        return "Got it!" if _facts([turn.text]) else HELP
    question = _fold(questions[-1])
    if re.search(r"\b(?:last reminder|(?:did|have) you (?:tell|told|send|sent|remind))", question):
        mirrors = (line.text for line in reversed(turn.history) if line.role == "assistant" and line.source == "mirror")
        return next(mirrors, "I have sent you nothing but my answers.")
    if not (key := _key_of(question)):
        return HELP
    own = (line.text for line in turn.history if line.role == "user" and line.author == turn.speaker)
    facts = _facts([*own, turn.text])
    if key not in facts:
        return "You have not told me that yet."
    value = re.sub(r"\bmy\b", "your", facts[key])
    return f"{value[:1].upper()}{value[1:]}."


def _sentences(text: str) -> Iterator[str]:
    straight = text[:MAX_READ].replace("\u2019", "'").replace("\u2018", "'").replace("\u02bc", "'")
    for line in straight.splitlines():
        for sentence in _BREAK.split(" ".join(line.split())):
            if stripped := _OPENING.sub("", sentence):
                yield _CONTRACTED.sub("my name is ", stripped)


def _is_question(sentence: str) -> bool:
    return sentence.endswith("?") or _ASKING.match(sentence) is not None


def _fold(words: str) -> str:
    """The words for comparison: without case and punctuation, in American spelling."""
    plain = re.sub(r"[^\w ]", "", unicodedata.normalize("NFKC", words).casefold())
    return " ".join(plain.replace("favourite", "favorite").replace("colour", "color").split())


def _key_of(question: str) -> str:
    """The subject of a folded question, such as `name`, `favorite color`, `live`; "" if it is not about the person."""
    if "who am i" in question:
        return "name"
    if did := re.search(rf"\b(?:do|did) i (?:really |also |now )?({_VERBS})\b", question):
        return did[1]
    subject = re.search(r"\bmy (.+)", question)
    return re.sub(r"(?: (?:is|are|was|were|again|please|now))+$", "", subject[1]) if subject else ""


def _facts(texts: Iterable[str]) -> dict[str, str]:
    """The stated facts, by folded key; the latest statement wins."""
    facts: dict[str, str] = {}
    for text in texts:
        for sentence in _sentences(text):
            if not _is_question(sentence):
                facts.update(_stated(sentence.rstrip(" .!\"'")))
    return facts


def _stated(sentence: str) -> Iterator[tuple[str, str]]:
    if property_ := _MINE.search(sentence):
        yield _fold(property_["key"]), property_["value"]
    if doing := _DOING.match(sentence):
        yield doing["key"].casefold(), doing["value"]
    if (being := _BEING.match(sentence)) and (name := _name_in(being["value"], sentence)):
        yield "name", name


def _name_in(value: str, sentence: str) -> str:
    """The name in "I'm Alice", "" in "I'm tired": a name has a capital, unless the person writes no capitals at all."""
    words = re.split(r",| from ", value, maxsplit=1)[0].split()
    if not 1 <= len(words) <= 3 or words[0].casefold() in _MOODS:
        return ""
    is_name = not words[0][0].islower() or (sentence.islower() and len(words) == 1)
    return " ".join(words) if is_name else ""
