"""The interface of kinds of table."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset

from beft_lightning.data.sources import Located, Row, is_empty
from beft_lightning.data.table.columns import Columns
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


class TableKind(ABC):
    """Reads one kind of task from a table.

    Args:
        columns: The options that name the table's columns.
        train: Name of the table of the training rows, for the task's name and for messages.
    """

    #: Name of the kind, as in ``--data.kind``.
    name: ClassVar[str]
    #: The options that name its columns, for messages.
    options: str = "--data.text and --data.label"
    #: The options that it reads beside ``text`` and ``label``, which have defaults.
    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, columns: Columns, train: str) -> None:
        self.columns = columns
        self.train = train

    @property
    def task_name(self) -> str:
        """Name of the task: that of the training file."""
        return Path(self.train).stem

    @property
    @abstractmethod
    def needed(self) -> tuple[str, ...]:
        """Names of the columns that the kind reads.

        Raises:
            DataError: If the options name columns that the kind has no use for.
        """

    @property
    def unused(self) -> list[str]:
        """The options that are given and that the kind has no use for."""
        return [name for name in self.columns.further if name not in self.takes]

    def fits(self) -> bool:
        """Return whether the options alone allow this kind, where ``--data.kind`` is not given."""
        return not self.unused

    @abstractmethod
    def matches(self, table: Dataset) -> bool:
        """Return whether a table that has the columns is of this kind, where ``--data.kind`` is not given."""

    @abstractmethod
    def make_task(self, table: Dataset) -> TaskRecord:
        """Make the task's record from the training rows.

        Raises:
            DataError: If the rows are not of this kind, or their labels cannot be learnt.
        """

    @abstractmethod
    def rows(self, table: Dataset, source: str, task: TaskRecord) -> Iterator[Located]:
        """Yield the rows of a table with checked cells, each with its place for error messages.

        Args:
            table: A table with the needed columns.
            source: Its name.
            task: The task's record.

        Raises:
            DataError: If a cell is empty, or does not suit the task.
        """

    def strata(self, table: Dataset) -> list[str]:
        """Return the stratum of each training row; the validation rows are drawn from each stratum alike.

        By default all rows are of one stratum.
        """
        return [""] * len(table)

    @abstractmethod
    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return how the training table was understood, to follow its number of rows."""


def place(source: str, index: int) -> str:
    """Return the place of a row for messages; the first row below the heading is row 1."""
    return f"{source} row {index + 1}"


def filled(row: Row, columns: tuple[str, ...], where: str) -> dict[str, Any]:
    """Return some columns of a row.

    Args:
        row: The row.
        columns: Names of the columns.
        where: Its place.

    Raises:
        DataError: If one of them is empty.
    """
    cells = {name: row[name] for name in columns}
    if empty := [name for name, value in cells.items() if is_empty(value)]:
        raise DataError(f"{where}: column {empty[0]!r} is empty. Fill it, or remove the row.")
    return cells


def missing_columns(kind: TableKind, table: Dataset) -> list[str]:
    """Return the columns that a kind reads and a table lacks."""
    return [name for name in kind.needed if name not in table.column_names]
