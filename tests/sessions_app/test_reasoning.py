from __future__ import annotations

import pytest

from sessions_app.agents.reasoning import without_reasoning

HARMONY = "<|start|>assistant<|channel|>final<|message|>"

FORMS = {
    "DeepSeek, Qwen": "<think>\nsecret\n</think>\n\nHello!",
    "a template that opens": "secret\n</think>\n\nHello!",
    "with attributes": '<think effort="high">secret</think>Hello!',
    "in capitals": "<THINK>secret</THINK>Hello!",
    "EXAONE": "<thought>secret</thought>Hello!",
    "Claude": "<thinking>secret</thinking>Hello!",
    "older Claude": "<antThinking>secret</antThinking>Hello!",
    "system prompts": "<reasoning>secret</reasoning>\n<answer>Hello!</answer>",
    "Hunyuan": "<think>secret</think><answer>Hello!</answer>",
    "ERNIE": "<think>secret</think>\n<response>\nHello!\n</response>",
    "Reflection": "<thinking>secret</thinking><output>Hello!",
    "scratchpad": "<scratchpad>secret</scratchpad>Hello!",
    "LongCat": "<longcat_think>secret</longcat_think>Hello!",
    "Seed": "<seed:think>secret</seed:think>Hello!",
    "Magistral": "[THINK]secret[/THINK]Hello!",
    "Kimi-VL": "\u25c1think\u25b7secret\u25c1/think\u25b7Hello!",
    "Cohere": "<|START_THINKING|>secret<|END_THINKING|><|START_RESPONSE|>Hello!<|END_RESPONSE|>",
    "OpenThinker": "<|begin_of_thought|>secret<|end_of_thought|>\n<|begin_of_solution|>Hello!<|end_of_solution|>",
    "Apertus": "<|inner_prefix|>secret<|inner_suffix|>Hello!",
    "MedGemma": "<unused94>thought\nsecret<unused95>Hello!",
    "Gemma": "<|channel>thought\nsecret<channel|>Hello!",
    "Solar": "<|think|>secret<|end|><|begin|>assistant<|content|>Hello!",
    "gpt-oss": f"<|channel|>analysis<|message|>secret<|end|>{HARMONY}Hello!<|return|>",
    "gpt-oss, opened by the template": f"secret<|end|>{HARMONY}Hello!",
    "gpt-oss with a preamble": "<|channel|>analysis<|message|>secret<|end|><|start|>assistant<|channel|>commentary"
    f"<|message|>secret<|end|>{HARMONY}Hello!<|end|>",
    "gpt-oss without special tokens": "analysisThe user says hi, secret.assistantfinalHello!",
    "twice": "<think>secret</think>Hel<think>secret</think>lo!",
    "one in the other": "<think>secret <think>secret</think> secret</think>Hello!",
    "closed by another name": "<think>secret</thinking>Hello!",
    "closed twice": "<think>secret</think>secret</think>Hello!",
    "after words": "Hello!\n<think>secret",
    "about its own marks": "<think>secret: I end with `</think>` or '</think>', secret</think>Hello!",
    "with code": "<think>```py\nsecret\n```\n`secret`</think>Hello!",
    "with a stray backtick": "secret ` secret</think>Hello!",
    "with a fence that stays open": "secret\n```py\nsecret</think>Hello!",
}


@pytest.mark.parametrize("form", FORMS)
def test_it_takes_out_reasoning(form: str) -> None:
    assert without_reasoning(FORMS[form]).strip() == "Hello!"


@pytest.mark.parametrize(
    "text",
    [
        "<think>secret",
        "<think>secret</think>",
        "<thought>\n\nsecret\n\n",
        "secret</think>\n",
        "<|channel|>analysis<|message|>secret",
        "<|channel|>analysis<|message|>secret<|end|>",
        "[THINK]secret",
        "<think>secret <think>secret</think>secret</think>",
        "<think>The user asks about `</think>`, secret",
    ],
)
def test_it_leaves_nothing_of_reasoning_alone(text: str) -> None:
    assert without_reasoning(text).strip() == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello!",
        "I think, therefore I am: 1 < 2 > 0.",
        "Qwen writes `<think>` before and `</think>` after its reasoning.",
        "Write `<think>plan</think>answer`, or ``` `<think>` ``` in a fence.",
        "A template gives `plan</think>answer`.",
        "```xml\n<think>\nplan\n</think>\nanswer\n```\nThis is what it looks like.",
        "1. So:\n   ~~~\n   plan\n   </think>\n   ~~~",
        'The tags "<think>" and "</think>" are not shown.',
        "The tags \u201c<think>\u201d and \u2018</think>\u2019 are not shown.",
        'It wrote "<think>plan</think> answer" to me.',
        "&lt;think&gt; is how HTML shows it.",
        "My analysis: the assistant is final.",
        "<answer>42</answer> is what the grader wants.",
        "<|end|> ends a message of gpt-oss.",
    ],
)
def test_it_keeps_the_words_of_an_answer_about_the_marks(text: str) -> None:
    assert without_reasoning(text) == text


def test_it_keeps_marks_in_code_after_reasoning() -> None:
    assert without_reasoning("<think>secret</think>Use `<think>` and `</think>`.") == "Use `<think>` and `</think>`."


@pytest.mark.parametrize(
    "piece", ["`a ", "``", "<think ", '"<think>', "```\n", "> ~~~\n", "<|channel|>analysis ", "<", "["]
)
def test_it_needs_little_time_for_hostile_text(piece: str) -> None:
    text = "secret</think>" + piece * (100_000 // len(piece))  # quadratic work would take minutes

    assert "secret" not in without_reasoning(text)
