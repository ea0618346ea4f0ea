"""Free text as a task: every token is learnt from those before it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from beft_lightning.data.column_task import ColumnExample, ColumnTask
from beft_lightning.data.sources import is_empty
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class FreeText(ColumnExample):
    """A text to learn."""

    text: str


@dataclass(frozen=True, kw_only=True)
class FreeTextTask(ColumnTask):
    """Texts for causal language models.

    Args:
        packing: Join texts into rows of ``max_length`` tokens to learn and evaluate them. Without, and where single
            texts are predicted, each text is a row, and a longer one loses its end.
    """

    kinds = ("text",)

    kind: Literal["text"] = "text"
    metrics: tuple[str, ...] = ("perplexity",)
    max_length: int = 1024
    packing: bool = False

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the task of a record of :meth:`to_dict`."""
        return cls(name=record["name"], max_length=record["max_length"], column=record["column"])

    def to_learn(self, value: Any, where: str) -> FreeText:
        """Return the text."""
        if is_empty(value):
            raise DataError(f"{where}: column {self.column!r} is empty. Fill it, or remove the row.")
        if not isinstance(value, str):
            raise DataError(f"{where}: column {self.column!r} is no text but {value!r}.")
        return FreeText(value)

    def to_predict(self, value: Any, where: str) -> FreeText:
        """Return the same as for learning: the text itself is what is predicted."""
        return self.to_learn(value, where)


def with_packing(task: TaskRecord, packing: bool | None) -> TaskRecord:
    """Return a task with the option of packing that a user gives; texts are packed unless the user says otherwise.

    Args:
        task: The task's record.
        packing: Whether to pack texts; None if the user does not say.

    Raises:
        DataError: If the task has no texts to pack.
    """
    if isinstance(task, FreeTextTask):
        return replace(task, packing=packing is not False)
    if packing is not None:
        raise DataError(
            f"--data.packing belongs to free text (--data.kind text), and {task.name} is of the kind {task.kind}: "
            "leave it out."
        )
    return task
