"""Tables with a prompt and an answer to generate in each row."""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset

from beft_lightning.data.answer_template import AnswerTemplate
from beft_lightning.data.generation import Generation
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.sources import Located, is_empty
from beft_lightning.data.table.kinds.kind import filled, place
from beft_lightning.data.table.kinds.unlabelled import UnlabelledKind
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError

#: Most tokens of a generated answer, if the user does not say.
MAX_NEW_TOKENS = 256


class GenerationKind(UnlabelledKind):
    """An answer behind a prompt: ``--data.prompt`` and ``--data.answer``."""

    name = "generation"
    takes = ("prompt", "answer")
    options = "--data.prompt and --data.answer"

    @property
    def answer(self) -> str:
        """The column of the answer.

        Raises:
            DataError: If none is given.
        """
        if self.columns.answer is None:
            raise DataError("--data.kind generation needs the column of the answers: give --data.answer.")
        return self.columns.answer

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns of the prompt.

        Raises:
            DataError: If there is no prompt, or it has the answer's column or none.
        """
        if self.columns.prompt is None:
            raise DataError(
                f"--data.answer {self.answer} needs a prompt before the answer: give --data.prompt with the columns in "
                'braces, such as "{text}".'
            )
        return self.columns.prompt_columns((self.answer,), "answer")

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns of the prompt and the answer."""
        return (*self.inputs, self.answer)

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record with the prompt as a template."""
        assert self.columns.prompt is not None
        return PromptTask(
            name=self.task_name,
            kind="generation",
            columns=self.needed,
            text=self.inputs,
            target=self.answer,
            examples=AnswerTemplate(self.columns.prompt, self.answer),
            metrics=("answer_f1", "answer_em"),
            loss="lm",
            generation=Generation(MAX_NEW_TOKENS, "end_of_text"),
        )

    def rows(self, table: Dataset, source: str, task: TaskRecord) -> Iterator[Located]:
        """Yield texts and answers that are not empty; where an answer ends with its line, answers of one line."""
        assert isinstance(task, PromptTask)
        for index, row in enumerate(table):
            where = place(source, index)
            cells = filled(row, self.needed, where)
            answers = cells[self.answer] if isinstance(cells[self.answer], list) else [cells[self.answer]]
            for answer in answers or [None]:
                self._check(answer, task, where)
            yield where, {**cells, self.answer: answers}

    def _check(self, answer: Any, task: PromptTask, where: str) -> None:
        if is_empty(answer):
            raise DataError(f"{where}: column {self.answer!r} is empty. Fill it, or remove the row.")
        if not isinstance(answer, str):
            raise DataError(f"{where}: column {self.answer!r} is no text but {answer!r}.")
        if task.generation.stop == "line" and "\n" in answer.strip():
            raise DataError(
                f"{where}: column {self.answer!r} has several lines, and an answer ends with its line: give "
                "--data.stop end_of_text."
            )

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return what is generated, and how it ends."""
        assert isinstance(task, PromptTask)
        return f"answers of column {self.answer!r} are generated, up to {task.generation.max_new_tokens} tokens"
