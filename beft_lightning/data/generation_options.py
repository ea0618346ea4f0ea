"""The options that say how answers are generated."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from beft_lightning.data.chat_task import ChatTask
from beft_lightning.data.generation import Stop
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


def with_generation(
    task: TaskRecord, max_new_tokens: int | None, stop: Stop | None, generate: Mapping[str, Any] | None
) -> TaskRecord:
    """Return a task with the options of generation that a user gives.

    Args:
        task: The task's record.
        max_new_tokens: Most tokens of an answer.
        stop: What ends an answer.
        generate: Further options of transformers' ``generate``.

    Raises:
        DataError: If an option is not valid, or the task has no use for it.
    """
    asked: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop, "options": generate}
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        return task
    if not isinstance(task, PromptTask | ChatTask) or task.kind not in ("generation", "chat"):
        name = next(iter(given)).replace("options", "generate")
        raise DataError(
            f"--data.{name} belongs to generated answers (--data.answer or --data.messages), and {task.name} is of the "
            f"kind {task.kind}: leave it out."
        )
    if stop is not None and isinstance(task, ChatTask):
        raise DataError("--data.stop: the chat template says what ends an answer: leave it out.")
    return replace(task, generation=replace(task.generation, **given))
