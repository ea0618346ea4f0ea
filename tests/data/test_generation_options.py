"""The options of a table that say how answers are generated."""

from typing import Any

import pytest

from beft_lightning.data.answer_template import AnswerTemplate
from beft_lightning.data.chat_task import ChatTask
from beft_lightning.data.free_text_task import FreeTextTask
from beft_lightning.data.generation import Generation
from beft_lightning.data.generation_options import with_generation
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.task import TaskRecord
from beft_lightning.data.verbalizer import Verbalizer
from beft_lightning.errors import DataError

ANSWERS = PromptTask(
    name="films",
    kind="generation",
    columns=("film", "review"),
    examples=AnswerTemplate("the {film} film:", "review"),
    target="review",
    metrics=("answer_f1",),
    generation=Generation(20, "end_of_text"),
)
CHAT = ChatTask(name="talks", column="messages")
CHOICE = PromptTask(
    name="moods",
    kind="choice",
    columns=("film", "label"),
    examples=Verbalizer("{film} is", (" a", " b"), ("a", "b")),
    labels=("a", "b"),
)


@pytest.mark.parametrize("task", [ANSWERS, CHAT, CHOICE, FreeTextTask(name="books", column="page")])
def test_without_options_a_task_stays_as_it_is(task: TaskRecord) -> None:
    assert with_generation(task, None, None, None) is task


def test_given_options_replace_those_of_the_task_and_the_others_stay() -> None:
    task: Any = with_generation(ANSWERS, 9, None, {"num_beams": 2})
    assert task.generation == Generation(9, "end_of_text", {"num_beams": 2})
    assert ANSWERS.generation == Generation(20, "end_of_text")
    task = with_generation(ANSWERS, None, "line", None)
    assert task.generation == Generation(20, "line")
    task = with_generation(CHAT, 9, None, None)
    assert task.generation == Generation(9, "end_of_text")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (CHOICE, (9, None, None), "--data.max_new_tokens belongs to generated answers .* moods is of the kind choice"),
        (CHOICE, (None, "line", None), "--data.stop belongs to generated answers"),
        (FreeTextTask(name="books", column="page"), (None, None, {}), "--data.generate belongs .* of the kind text"),
        (CHAT, (9, "line", None), "--data.stop: the chat template says what ends an answer"),
        (ANSWERS, (0, None, None), "max_new_tokens is 0"),
    ],
)
def test_options_that_the_task_has_no_use_for(task: TaskRecord, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_generation(task, *options)
