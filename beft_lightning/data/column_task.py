"""The base of tasks that read one column as it is, without a prompt."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from beft_lightning.data.sources import Row, file_id
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ColumnExample:
    """An example that is the value of one cell.

    Args:
        id: Number to report the prediction under; by default the example's place in its split.
        file_id: The id that the example has in its file.
        where: File and row, for error messages.
    """

    id: int | None = None
    file_id: Any = None
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class ColumnTask(TaskRecord):
    """A task of one column.

    Args:
        column: Name of the column.
    """

    adds_head = False

    column: str
    epochs: int = 5

    def to_dict(self) -> dict[str, Any]:
        """Return the same as for any task, and the column."""
        return {**super().to_dict(), "column": self.column}

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def parse_row(self, row: Row, where: str) -> list[Any]:
        """Return the example of a row."""
        return [replace(self.to_learn(self._cell(row, where), where), file_id=file_id(row), where=where)]

    def parse_input(self, row: Row, where: str) -> list[tuple[Row, Any]]:
        """Return the example of a row that is to be predicted, behind its row."""
        return [(row, replace(self.to_predict(self._cell(row, where), where), file_id=file_id(row), where=where))]

    @abstractmethod
    def to_learn(self, value: Any, where: str) -> ColumnExample:
        """Return the example to learn from, or to evaluate, of a cell.

        Args:
            value: The cell.
            where: File and row, for error messages.

        Raises:
            DataError: If the cell does not hold what the task needs.
        """

    @abstractmethod
    def to_predict(self, value: Any, where: str) -> ColumnExample:
        """Return the example of a cell whose answer is not looked at; arguments and errors as in :meth:`to_learn`."""

    def _cell(self, row: Row, where: str) -> Any:
        if self.column not in row:
            raise DataError(f"{where}: no column {self.column!r}; there are: {', '.join(map(str, row))}.")
        return row[self.column]

    def numbered(self, examples: Sequence[Any]) -> list[Any]:
        """Give each example that has no id its place in the split."""
        return [replace(e, id=place) if e.id is None else e for place, e in enumerate(examples)]

    def file_ids(self, examples: Sequence[Any]) -> list[Any]:
        """Return the id that each example has in its file; None where there is none."""
        return [example.file_id for example in examples]

    def with_baselines(self, demonstrations: int, calibrate: bool) -> Self:
        """Return the task, after a check that there are none: they belong to prompts."""
        if demonstrations or calibrate:
            raise DataError(f"demonstrations and calibrate belong to prompts, and {self.name} has none.")
        return self
