"""Multiple choice from columns: a prompt, and options of the row's own."""

from dataclasses import dataclass

from beft_lightning.data.labels import label_index
from beft_lightning.data.prompt_task import Prompted, separator
from beft_lightning.data.sources import Row
from beft_lightning.data.task_checks import options_of


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
        space = separator(prompt)
        right = (label_index(row["label"], tuple(map(str, range(len(texts))))),) if "label" in row else ()
        return [Prompted(prompt, tuple(f"{space}{text}" for text in texts), right, candidates=tuple(texts))]
