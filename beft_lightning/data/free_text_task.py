"""Free text as a task: every token is learnt from those before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from beft_lightning.data.sources import Row
from beft_lightning.data.task import TaskRecord, check_filled, check_texts
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class FreeText:
    """A text to learn.

    Args:
        text: The text.
        id: Number to report the prediction under; by default the text's place in its split.
        where: File and row, for error messages.
    """

    text: str
    id: int | None = None
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class FreeTextTask(TaskRecord):
    """Texts for causal language models.

    Args:
        text: The column of the text.
    """

    kinds = ("text",)
    adds_head = False

    kind: Literal["text"] = "text"
    metrics: tuple[str, ...] = ("perplexity",)
    epochs: int = 5
    max_length: int = 1024
    text: tuple[str, ...]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the task of a record of :meth:`to_dict`, without metrics."""
        return cls(name=record["name"], max_length=record["max_length"], text=tuple(record["text"]), metrics=())

    def to_dict(self) -> dict[str, Any]:
        """Return the same as for any task, and the column of the text."""
        return {**super().to_dict(), "text": list(self.text)}

    def parse_row(self, row: Row, where: str) -> list[FreeText]:
        """Return the text of a row."""
        (column,) = self.text
        if column not in row:
            raise DataError(f"{where}: no column {column!r}; there are: {', '.join(map(str, row))}.")
        try:
            check_texts(row, self.text)
        except DataError as error:
            raise DataError(f"{where}: {error}.") from error
        return [FreeText(row[column], where=where)]

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The column of the text."""
        return self.text

    def parse_input(self, row: Row, where: str) -> list[tuple[Row, FreeText]]:
        """Return the row and its text."""
        check_filled(row, self.text, where)
        return [(row, example) for example in self.parse_row(row, where)]

    def numbered(self, examples: Sequence[FreeText]) -> list[FreeText]:
        """Give each text that has no id its place in the split."""
        return [replace(e, id=place) if e.id is None else e for place, e in enumerate(examples)]

    def check_baselines(self, demonstrations: int, calibrate: bool) -> None:
        """Check that there are none: they belong to prompts."""
        if demonstrations or calibrate:
            raise DataError(f"demonstrations and calibrate belong to prompts, and {self.name} holds free text.")
