"""The registry of objectives."""

import pytest

from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, SUPER_GLUE_TASKS, PromptTask, Task, TaskRecord
from beft_lightning.data.chat_task import ChatTask
from beft_lightning.data.free_text_task import FreeTextTask
from beft_lightning.data.media.task import AudioTask, ImageTask
from beft_lightning.data.preprocessors import PREPROCESSORS
from beft_lightning.tasks.objectives import OBJECTIVES, make_objective

TASKS = [*GLUE_TASKS.values(), *SUPER_GLUE_TASKS.values(), *PROMPT_TASKS.values()]


def test_every_kind_has_an_objective_and_a_preprocessor() -> None:
    assert (
        set(OBJECTIVES)
        == set(PREPROCESSORS)
        == {
            kind for record in (Task, PromptTask, ChatTask, FreeTextTask, ImageTask, AudioTask) for kind in record.kinds
        }
    )


@pytest.mark.parametrize("task", [task for task in TASKS if task.kind != "generation"], ids=lambda task: task.name)
def test_no_tokenizer_is_loaded_in_vain(task: TaskRecord) -> None:
    def load_tokenizer() -> None:
        raise AssertionError

    assert make_objective(task, load_tokenizer).task is task  # type: ignore[arg-type]
