"""Tasks from the records that checkpoints hold."""

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, Prompted, PromptTask, Verbalizer
from beft_lightning.data.answer_template import AnswerTemplate
from beft_lightning.data.generation import Generation
from beft_lightning.data.task_records import task_from_dict
from beft_lightning.errors import CheckpointError

VERBALIZER = Verbalizer("{text} It was", (" bad", " good"), ("neg", "pos"))
CHOICE = PromptTask(name="reviews", kind="choice", columns=("text", "label"), examples=VERBALIZER, max_length=77)
ANSWER = PromptTask(
    name="questions",
    kind="generation",
    metrics=("answer_f1",),
    columns=("question", "answer"),
    text=("question",),
    target="answer",
    examples=AnswerTemplate("{question}\nAnswer:", "answer"),
    loss="lm",
    generation=Generation(7, "end_of_text", {"num_beams": 2}),
    max_length=99,
)


def own_examples(row: Any) -> list[Prompted]:
    return [Prompted(row["sentence"], (" a",))]


@pytest.mark.parametrize("task", [CHOICE, ANSWER, *PROMPT_TASKS.values()], ids=lambda task: task.name)
@pytest.mark.parametrize("calibrate", [False, True])
def test_a_prompted_task_is_restored(task: PromptTask, calibrate: bool) -> None:
    task = replace(task, calibrate=calibrate)
    record = json.loads(json.dumps(task.to_dict()))  # plain types only
    restored = task_from_dict(record, task.labels)
    assert replace(restored, metrics=task.metrics) == task


def test_a_task_of_bare_texts_is_restored() -> None:
    task = GLUE_TASKS["rte"]
    restored = task_from_dict(task.to_dict(), task.labels)
    assert restored.to_dict() == task.to_dict()
    assert restored.labels == task.labels


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (replace(PROMPT_TASKS["sst2"], examples=own_examples), {}, "a Python function of its own"),
        (replace(CHOICE, examples=replace(VERBALIZER, prompt=str)), {}, "a Python function of its own"),
        (replace(CHOICE, examples=partial(own_examples)), {}, "a Python function of its own"),
        (replace(PROMPT_TASKS["multirc"], name="mine"), {}, "a Python function of its own"),
        (CHOICE, {"kind": "painting"}, "unknown kind 'painting'"),
        (CHOICE, {"examples": {"type": "Verbalizer", "prompt": "a"}}, "the record of task 'reviews' is malformed"),
        (
            CHOICE,
            {"demonstrations": 4},
            "task 'reviews' is asked behind 4 demonstrations, examples of its training set",
        ),
        (CHOICE, {"examples": 5}, "the record of task 'reviews' is malformed"),
        (ANSWER, {"generation": {"max_new_tokens": 0}}, "malformed .*max_new_tokens is 0"),
    ],
)
def test_a_record_that_cannot_be_restored(task: PromptTask, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=re.compile(message)):
        task_from_dict({**task.to_dict(), **change}, task.labels)


def test_a_record_of_the_first_version_has_no_prompts() -> None:
    record = {name: CHOICE.to_dict()[name] for name in ("name", "kind", "max_length")}
    with pytest.raises(CheckpointError, match="from a version that did not say how prompts are made"):
        task_from_dict(record, [])
    with pytest.raises(CheckpointError, match="task None is of the unknown kind 'painting'"):
        task_from_dict({"kind": "painting"}, [])


def test_a_record_without_the_fields_of_later_versions_is_restored() -> None:
    for task in (PROMPT_TASKS["multirc"], CHOICE):
        record = task.to_dict()
        for name in ("group", "source"):
            del record["examples"][name]
        assert replace(task_from_dict(record, task.labels), metrics=task.metrics) == task
