"""Takes the reasoning of models out of their answers.

Servers that know a model's marks keep its reasoning in a field of its own. Others leave it in the text, often with half
of its marks: chat templates write the opening one themselves, and servers leave special tokens out.
"""

from __future__ import annotations

import re

_NAMES = (
    r"(?:(?:[a-z]+:)?think(?:ing)?|thoughts?|reasoning|scratchpad|antthinking|inner_monologue|inner_thoughts|"
    r"longcat_think)"
)
# Each mark as models write it. Tags: DeepSeek, Qwen, GLM, EXAONE, Claude, LongCat, Seed and many others. Then
# Magistral, Kimi-VL, Cohere, OpenThinker, Apertus, MedGemma, Gemma, Solar, and gpt-oss, whose channel `final` is the
# answer.
_OPENING = (
    rf"(?:<{_NAMES}(?:\s[^<>]*)?>|\[THINK\]|\u25c1think\u25b7|<\|START_THINKING\|>|<\|begin_of_thought\|>|"
    r"<\|inner_prefix\|>|<unused94>(?:thought\b)?|<\|channel>thought\b|<\|think\|>|"
    r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b[^<]*(?:<\|constrain\|>\w*)?<\|message\|>)"
)
_CLOSING = (
    rf"(?:</{_NAMES}\s*>|\[/THINK\]|\u25c1/think\u25b7|<\|END_THINKING\|>|<\|end_of_thought\|>|<\|inner_suffix\|>|"
    r"<unused95>|<channel\|>|(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final\b[^<]*<\|message\|>|"
    r"<\|end\|><\|begin\|>assistant<\|content\|>)"
)
_ANY = rf"(?:{_OPENING}|{_CLOSING})"
# A mark in code or quotes is what the text is about. A backtick that touches a blank inside is a stray one.
_FENCE = r"^[ \t>]*(?P<fence>`{3,}|~{3,})[^\n`]*\n(?:(?![ \t>]*(?:`{3}|~{3})).*\n)*?[ \t>]*(?P=fence)[ \t]*$"
_SPAN = r"``[^\n]{1,1000}?``|`(?![\s`])[^\n`]{1,1000}(?<!\s)`"
_QUOTED = (
    rf"[\"'`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\\]{_ANY}[\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb\\]|"
    rf"\"{_OPENING}[^\n\"]{{0,1000}}\"|\u201c{_OPENING}[^\n\u201d]{{0,1000}}\u201d"
)
_IN_ANSWER = re.compile(
    rf"(?P<text>{_FENCE}|{_SPAN}|{_QUOTED})|(?P<opening>{_OPENING})|(?P<closing>{_CLOSING})",
    re.IGNORECASE | re.MULTILINE,
)
_IN_REASONING = re.compile(rf"(?P<text>{_QUOTED})|(?P<closing>{_CLOSING}|<\|end\|>)", re.IGNORECASE)
_MARK = re.compile(_ANY, re.IGNORECASE)
# What gpt-oss leaves where its server removes the special tokens: "analysisWe must ...assistantfinalHello!"
_WITHOUT_TOKENS = re.compile(r"\s*(?:assistant)?(?:analysis|commentary).*assistantfinal", re.DOTALL)
_TOKEN = r"<\|(?:start\|>assistant|end|return|(?:begin|end)_of_solution|(?:START|END)_RESPONSE)\|>"
_TOKENS = re.compile(rf"\A(?:\s*{_TOKEN})+|(?:{_TOKEN}\s*)+\Z")
_FRAME = re.compile(r"\s*<(?P<name>answer|response|output)>(?P<answer>.*?)(?:</(?P=name)>)?\s*", re.DOTALL)


def without_reasoning(text: str) -> str:
    """The answer in what a model wrote; blank if it is only reasoning.

    What follows an opening mark is reasoning, to its closing mark or to the end. What stands before a closing mark is
    reasoning too, even without an opening one. Marks in code or quotes are part of the text.
    """
    bare = _WITHOUT_TOKENS.match(text)
    if not bare and not _MARK.search(text):
        return text
    answer: list[str] = []
    place = bare.end() if bare else 0
    while mark := _IN_ANSWER.search(text, place):
        answer.append(text[place : mark.end() if mark["text"] else mark.start()])
        place = mark.end()
        if mark["closing"]:
            answer.clear()
        elif mark["opening"]:
            place = _end_of_reasoning(text, place)
    answer.append(text[place:])
    told = "".join(answer)
    if told == text:
        return text
    told = _TOKENS.sub("", told)
    frame = _FRAME.fullmatch(told)
    return frame["answer"] if frame else told


def _end_of_reasoning(text: str, place: int) -> int:
    while mark := _IN_REASONING.search(text, place):
        place = mark.end()
        if mark["closing"]:
            return place
    return len(text)
