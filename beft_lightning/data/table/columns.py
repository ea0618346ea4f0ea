"""The options that name a table's columns."""

from dataclasses import dataclass
from string import Formatter
from typing import Self

from beft_lightning.errors import DataError

#: The names under which an example of bare texts keeps its label and ids; one of a prompt keeps its label so.
_TAKEN = ("label", "id", "file_id")


@dataclass(frozen=True)
class Columns:
    r"""The options of :class:`~beft_lightning.data.table.datamodule.Table` that name columns.

    Args:
        text: Columns of the texts.
        label: Columns of the labels, most often one.
        options: For multiple choice, the columns of the options, or the one column that lists them.
        prompt: Prompt with columns in braces; ``\n`` is a new line.
        answer: Column of the answer to generate behind the prompt.
        messages: Column of conversations.
    """

    text: tuple[str, ...]
    label: tuple[str, ...]
    options: tuple[str, ...] = ()
    prompt: str | None = None
    answer: str | None = None
    messages: str | None = None

    @classmethod
    def given(
        cls,
        text: str | list[str],
        label: str | list[str],
        options: str | list[str] | None = None,
        prompt: str | None = None,
        answer: str | None = None,
        messages: str | None = None,
    ) -> Self:
        """Return the options as a user gives them: names as a list or with a comma between.

        Raises:
            DataError: If a column is given twice.
        """
        names = {"text": _names(text), "label": _names(label), "options": _names(options or [])}
        for option, columns in names.items():
            if len(set(columns)) < len(columns):
                raise DataError(f"--data.{option} {','.join(columns)}: a column is given twice.")
        prompt = None if prompt is None else prompt.replace("\\n", "\n")
        return cls(**names, prompt=prompt, answer=answer, messages=messages)

    @property
    def kind(self) -> str | None:
        """Name of the kind that has a column of its own, if one is given."""
        if self.messages is not None:
            return "chat"
        return None if self.answer is None else "generation"

    @property
    def further(self) -> list[str]:
        """Names of the options that are given beside ``text`` and ``label``, which have defaults."""
        return [name for name in ("options", "prompt", "answer", "messages") if getattr(self, name) not in (None, ())]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that an input is made of: those of the prompt, or one or two of text.

        Raises:
            DataError: If there are none, more than two texts, a label or a name that examples use among them.
        """
        if self.prompt is not None:
            return free_names("prompt", self.prompt_columns(self.label, "label"), ("label",))
        if len(self.text) > 2 or len(set(self.text) - {*self.label}) < len(self.text):
            raise DataError(
                f"--data.text {','.join(self.text)}: give one column, or two different ones for a pair, and not the "
                f"label's, {', '.join(map(repr, self.label))}."
            )
        return free_names("text", self.text)

    def prompt_columns(self, targets: tuple[str, ...], what: str) -> tuple[str, ...]:
        """Return the columns of the prompt.

        Args:
            targets: The columns of what is to be predicted.
            what: What is to be predicted, for the message.

        Raises:
            DataError: If the prompt names no column, or one of ``targets``.
        """
        fields = self.prompt_fields
        if not fields or {*targets} & {*fields} or not all(name.isidentifier() for name in fields):
            raise DataError(
                f"--data.prompt {self.prompt!r}: name at least one column in braces, such as {{text}}, and not the "
                f"{what}'s, {', '.join(map(repr, targets))}."
            )
        return fields

    @property
    def prompt_fields(self) -> tuple[str, ...]:
        """The names in braces of the prompt, each once.

        Raises:
            DataError: If a brace is not closed, or holds more than a name.
        """
        try:
            fields = [field for field in Formatter().parse(self.prompt or "") if field[1] is not None]
        except ValueError as error:
            raise DataError(f"--data.prompt {self.prompt!r}: {error}; write {{{{ for a brace itself.") from error
        if any(form or conversion for _, _, form, conversion in fields):
            raise DataError(
                f"--data.prompt {self.prompt!r}: a brace holds the name of a column alone, such as {{text}}."
            )
        return tuple(dict.fromkeys(name for _, name, _, _ in fields if name is not None))


def free_names(option: str, columns: tuple[str, ...], taken: tuple[str, ...] = _TAKEN) -> tuple[str, ...]:
    """Return columns of an input, after a check that examples keep nothing else under their names.

    Args:
        option: Name of the option that names them, for the message.
        columns: Names of columns.
        taken: The names that examples use.

    Raises:
        DataError: If one has such a name.
    """
    if used := [name for name in columns if name in taken]:
        raise DataError(
            f"--data.{option}: column {used[0]!r} is an input, and examples keep their own {used[0]} under this name: "
            "rename the column."
        )
    return columns


def _names(given: str | list[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in (given.split(",") if isinstance(given, str) else given))
