"""Tables for causal language models without labels, which an option of their own names."""

from collections.abc import Iterator

from datasets import Dataset

from beft_lightning.data.sources import Located
from beft_lightning.data.table.kinds.kind import TableKind, place
from beft_lightning.data.task import TaskRecord


class UnlabelledKind(TableKind):
    """Texts to write or to read; nothing in a table itself tells that it is of such a kind."""

    def fits(self) -> bool:
        """Return false: the kind is named."""
        return False

    def matches(self, table: Dataset) -> bool:
        """Return false: the kind is named."""
        return False

    def rows(self, table: Dataset, source: str, task: TaskRecord) -> Iterator[Located]:
        """Yield the rows as they are; the task checks the cells."""
        return ((place(source, index), row) for index, row in enumerate(table))
