"""Prompts and answers from columns."""

import pytest

from beft_lightning.data import Prompted
from beft_lightning.data.answer_template import AnswerTemplate


@pytest.mark.parametrize(("prompt", "space"), [("{q}\nAnswer:", " "), ("{q}\n", "")])
def test_white_space_belongs_to_the_answer_unless_the_prompt_has_it(prompt: str, space: str) -> None:
    template = AnswerTemplate(prompt, "a")
    (example,) = template({"q": "Why?", "a": "So\nit is. "})
    assert example == Prompted(prompt.format(q="Why?"), (f"{space}So\nit is.",), answers=(("So\nit is. ",),))


def test_the_first_of_several_answers_is_learnt() -> None:
    (example,) = AnswerTemplate("{q}", "a")({"q": "Why?", "a": ["b", "c"]})
    assert (example.options, example.answers) == ((" b",), (("b",), ("c",)))


def test_a_row_without_an_answer_is_to_be_predicted() -> None:
    assert AnswerTemplate("{q}", "a")({"q": "Why?"}) == [Prompted("Why?", ())]
