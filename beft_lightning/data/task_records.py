"""Tasks from the records that checkpoints hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from beft_lightning.data.answer_template import AnswerTemplate
from beft_lightning.data.benchmarks.prompts import PROMPT_TASKS
from beft_lightning.data.chat_task import ChatTask
from beft_lightning.data.free_text_task import FreeTextTask
from beft_lightning.data.generation import Generation
from beft_lightning.data.media.task import AudioTask, ImageTask
from beft_lightning.data.option_template import OptionTemplate
from beft_lightning.data.prompt_task import Prompted, PromptTask
from beft_lightning.data.sources import Row
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.data.verbalizer import Verbalizer
from beft_lightning.errors import CheckpointError, DataError

#: The templates that make the examples of prompted tasks, by the names in records.
TEMPLATES: Mapping[str, Callable[..., Callable[[Row], list[Prompted]]]] = {
    template.__name__: template for template in (AnswerTemplate, OptionTemplate, Verbalizer)
}


def task_from_dict(record: Mapping[str, Any], labels: Sequence[str]) -> TaskRecord:
    """Return the task of a record of :meth:`~beft_lightning.data.task.TaskRecord.to_dict`.

    The record does not hold metrics: the task has none, or those that all tasks of its kind or the benchmark have.
    Prompts that Python functions make are those of the package's benchmarks, found again by the task's name.

    Args:
        record: The record.
        labels: Label names in the order of their ids, for records that do not hold them.

    Raises:
        CheckpointError: If the record is malformed, its kind is unknown, or its prompts are made by a function that
            is not of this package.
    """
    try:
        labels = record.get("labels", labels)
        if record["kind"] in Task.kinds:
            return Task.from_dict(record, labels)
        if record["kind"] in PromptTask.kinds:
            return _prompt_task(record, labels)
        if record["kind"] in ChatTask.kinds:
            return ChatTask.from_dict(record)
        if record["kind"] in FreeTextTask.kinds:
            return FreeTextTask.from_dict(record)
        for media in (ImageTask, AudioTask):
            if record["kind"] in media.kinds:
                return media.from_dict(record, labels)
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise CheckpointError(
            f"the record of task {record.get('name')!r} is malformed ({type(error).__name__}: {error}). Use a "
            "checkpoint that a fit has written."
        ) from error
    raise CheckpointError(f"task {record.get('name')!r} is of the unknown kind {record['kind']!r}.")


def _prompt_task(record: Mapping[str, Any], labels: Sequence[str]) -> PromptTask:
    if "examples" not in record:
        raise CheckpointError(
            f"the record of task {record['name']!r} is from a version that did not say how prompts are made: use "
            "`predict --config CONFIG` with the config.yaml of its fit, or continue the fit by an epoch."
        )
    if record.get("demonstrations"):
        raise CheckpointError(
            f"task {record['name']!r} is asked behind {record['demonstrations']} demonstrations, examples of its "
            "training set, which a checkpoint does not hold: use `predict --config CONFIG` with the config.yaml of its "
            "fit, or continue the fit without --data.demonstrations."
        )
    benchmark = PROMPT_TASKS.get(record["name"])
    if benchmark is not None and _same_examples(benchmark.to_dict(), record):
        return replace(
            benchmark,
            max_length=record["max_length"],
            generation=Generation(**record["generation"]),
            calibrate=record.get("calibrate", False),
        )
    fields = dict(record["examples"])
    template = TEMPLATES.get(fields.pop("type", ""))
    if template is None or record["flatten"] or any(isinstance(value, Mapping) for value in fields.values()):
        raise CheckpointError(
            f"the prompts of task {record['name']!r} are made by a Python function of its own, which a checkpoint does "
            "not hold: use `predict --config CONFIG` with the config.yaml of its fit."
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return PromptTask.from_dict(record, labels, template(**values))


def _same_examples(benchmark: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Return whether a record makes examples as a benchmark does; fields that the record's version lacked are equal."""
    known = {name: benchmark["examples"].get(name) for name in record["examples"]}
    return known == record["examples"] and all(benchmark[name] == record[name] for name in ("kind", "flatten"))
