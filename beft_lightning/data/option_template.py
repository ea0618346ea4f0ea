"""Multiple choice from columns: a prompt, and options of the row's own."""

from collections.abc import Sequence
from dataclasses import dataclass

from beft_lightning.data.labels import label_index
from beft_lightning.data.prompt_task import Prompted
from beft_lightning.data.sources import Row
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class OptionTemplate:
    r"""Makes the prompted example of a row with options and a ``label``, or of one without, to be predicted.

    Args:
        prompt: The prompt as a template with the columns in braces, such as ``"{question}\nAnswer:"``.
        options: Columns of the options, or the one column that lists them.
    """

    prompt: str
    options: tuple[str, ...]

    def __call__(self, row: Row) -> list[Prompted]:
        """Return the one example of the row.

        Raises:
            DataError: If there are not at least two different options, or the label is none of them.
        """
        prompt = self.prompt.format_map(row)
        texts = options_of(row, self.options)
        # White space at the end of the prompt would belong to no token of the options.
        space = "" if prompt[-1:].isspace() else " "
        right = (label_index(row["label"], tuple(map(str, range(len(texts))))),) if "label" in row else ()
        return [Prompted(prompt, tuple(f"{space}{text}" for text in texts), right, candidates=tuple(texts))]


def options_of(row: Row, columns: Sequence[str]) -> list[str]:
    """Return the options of a row, without white space around them.

    Args:
        row: The row.
        columns: Columns of the options, or the one column that lists them.

    Raises:
        DataError: If there are fewer than two, one is empty or no text, or two are the same.
    """
    values = row[columns[0]] if len(columns) == 1 else [row[name] for name in columns]
    if not isinstance(values, list | tuple) or len(values) < 2:
        raise DataError(f"column {columns[0]!r} holds {values!r}, and no list of two or more options")
    for number, text in enumerate(values):
        name = repr(columns[number]) if len(columns) > 1 else f"{number} of column {columns[0]!r}"
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"option {name} is empty or no text: {text!r}")
    texts = [text.strip() for text in values]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise DataError(f"the option {twice[0]!r} occurs twice")
    return texts
