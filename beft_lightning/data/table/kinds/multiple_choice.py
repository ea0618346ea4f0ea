"""Tables with options of its own for each row."""

from string import ascii_uppercase as _LETTERS
from typing import Any

from datasets import Dataset

from beft_lightning.data.option_template import OptionTemplate
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.sources import Row
from beft_lightning.data.table.columns import free_names
from beft_lightning.data.table.kinds.labelled import LabelledKind
from beft_lightning.data.table.labels import label_name
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.data.task_checks import options_of
from beft_lightning.errors import DataError


class MultipleChoice(LabelledKind):
    """One of the options of each row: bare texts with a new head, or options behind a prompt.

    The label is the option's number from 0, its letter from A, its column, or its text.
    """

    name = "multiple_choice"
    options = "--data.text, --data.options and --data.label"
    takes = ("options", "prompt")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns of the input and of the options.

        Raises:
            DataError: If no options were given, or a text, the label or a name that examples use is among them.
        """
        options, texts = {*self.columns.options}, self.columns.inputs
        # A prompt may show the options, too.
        others = {self.label} if self.columns.prompt is not None else {self.label, *texts}
        if not options or options & others:
            raise DataError(
                f"--data.options {','.join(self.columns.options)}: {self.name} needs the columns of the options, or "
                "the one that lists them, and none of them is also the text's or the label's."
            )
        return tuple(dict.fromkeys((*texts, *free_names("options", self.columns.options))))

    def fits(self) -> bool:
        """Return whether there is one column of labels, and options."""
        return super().fits() and bool(self.columns.options)

    def matches(self, table: Dataset) -> bool:
        """Return True: the options tell."""
        return True

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record without label names: the options differ between rows."""
        self.labels(table, self.train)
        options = self.columns.options
        if self.columns.prompt is not None:
            return PromptTask(
                name=self.task_name,
                kind="choice",
                columns=(*self.inputs, "label"),
                text=self.columns.inputs,
                examples=OptionTemplate(self.columns.prompt, options),
            )
        return Task(
            name=self.task_name,
            kind="multiple_choice",
            text=self.columns.inputs,
            labels=options if len(options) > 1 else (),
            options=options[0] if len(options) == 1 else "",
            metrics=("accuracy",),
        )

    def known_label(self, label: Any, row: Row, task: TaskRecord, where: str) -> int | str:
        """Return the right option: its column, where the columns are the task's labels, or else its number."""
        try:
            texts = options_of(row, self.columns.options)
        except DataError as error:
            raise DataError(f"{where}: {error}.") from error
        found = self._numbers(label, texts)
        if len(found) != 1:
            wrong = f"may be option {' or '.join(map(str, sorted(found)))}" if found else "is not one of the options"
            raise DataError(
                f"{where}: label {label!r} {wrong}. Give its number from 0 to {len(texts) - 1}, its letter from A to "
                f"{_LETTERS[: len(texts)][-1]}, its column, or its text, of: {', '.join(map(repr, texts))}."
            )
        number = found.pop()
        # A column's name may be a number, which would be read as a name first.
        return task.labels[number] if task.labels else number

    def _numbers(self, label: Any, texts: list[str]) -> set[int]:
        """Return the numbers of the options that a label may mean; a number that is no text is an option's number."""
        numbered = [*enumerate(map(str, range(len(texts))))]
        if not isinstance(label, str):
            return {number for number, name in numbered if name == label_name(label)}
        columns = self.columns.options if len(self.columns.options) > 1 else ()
        names = [*numbered, *enumerate(texts), *enumerate(columns), *enumerate(_LETTERS[: len(texts)])]
        return {number for number, name in names if name == label.strip()}

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return where the options come from."""
        return f"multiple_choice between the options of {', '.join(self.columns.options)}"
