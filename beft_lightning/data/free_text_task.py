"""Free text as a task: every token is learnt from those before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from beft_lightning.data.column_task import ColumnExample, ColumnTask
from beft_lightning.data.sources import is_empty
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class FreeText(ColumnExample):
    """A text to learn."""

    text: str


@dataclass(frozen=True, kw_only=True)
class FreeTextTask(ColumnTask):
    """Texts for causal language models."""

    kinds = ("text",)

    kind: Literal["text"] = "text"
    metrics: tuple[str, ...] = ("perplexity",)
    max_length: int = 1024

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
