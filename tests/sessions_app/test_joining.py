from __future__ import annotations

import pytest

from sessions_app.turns import joining

CUT = (20, 40)
LINE = "twenty units exactly"  # 20


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["hello"], "hello"),
        (["hello", "world"], "hello\nworld"),
        # Cut in the middle of a word, at the limit or at twice the limit.
        ([LINE, "and more"], f"{LINE}and more"),
        ([LINE * 2, "and more"], f"{LINE}{LINE}and more"),
        ([LINE, LINE, "end", "next"], f"{LINE}{LINE}end\nnext"),
        # The blank is in neither part if the app cuts at one.
        ([LINE[:19], "and more"], f"{LINE[:19]}\nand more"),
        ([LINE + "!", "and more"], f"{LINE}!\nand more"),
        # Units, not characters; and no app cuts a character in two.
        (["\N{OCTOPUS}" * 10, "\N{OCTOPUS}"], "\N{OCTOPUS}" * 11),
        ([LINE[:19], "\N{OCTOPUS} more"], f"{LINE[:19]}\N{OCTOPUS} more"),
        ([LINE[:18], "\N{OCTOPUS} more"], f"{LINE[:18]}\n\N{OCTOPUS} more"),
        (["\N{OCTOPUS}" * 20, "x" * 3], "\N{OCTOPUS}" * 20 + "xxx"),
    ],
)
def test_it_joins_what_an_app_cut_and_keeps_other_texts_apart(texts: list[str], joined: str) -> None:
    assert joining.join(texts, cut_at=CUT) == joined


def test_it_keeps_texts_apart_where_no_app_cuts() -> None:
    assert joining.join([LINE, "and more"], cut_at=()) == f"{LINE}\nand more"
