"""Tables with a free text in each row."""

from datasets import Dataset

from beft_lightning.data.free_text_task import FreeTextTask
from beft_lightning.data.table.kinds.unlabelled import UnlabelledKind
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


class FreeTextKind(UnlabelledKind):
    """Texts whose every token is learnt: ``--data.kind text``."""

    name = "text"
    options = "--data.text"

    @property
    def needed(self) -> tuple[str, ...]:
        """The column of the texts.

        Raises:
            DataError: If there are several.
        """
        if len(self.columns.text) != 1:
            raise DataError(f"--data.text {','.join(self.columns.text)}: kind text has one column of texts.")
        return self.columns.text

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record with the name of the column."""
        return FreeTextTask(name=self.task_name, column=self.needed[0])

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return what is learnt."""
        return f"free text of column {self.needed[0]!r}, every token is learnt"
