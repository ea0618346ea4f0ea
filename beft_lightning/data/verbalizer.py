"""Classification by words: a prompt, and a word for each label."""

from collections.abc import Callable
from dataclasses import dataclass

from beft_lightning.data.labels import label_index
from beft_lightning.data.prompt_task import Prompted
from beft_lightning.data.sources import Row


@dataclass(frozen=True)
class Verbalizer:
    """Makes the prompted example of a row with a ``label``, or of one without, to be predicted.

    Args:
        prompt: The prompt as a template with the columns in braces, such as ``"{sentence} It was"``, or a function
            of the row.
        words: The options, one for each label, with the white space that separates them from the prompt.
        labels: Label names, in the order of the words.
        calibration: The prompt without the example's content, to calibrate the options' scores with.
        group: Column of the example's ``group``, if there is one.
        source: Column of the example's ``source``, if there is one.
    """

    prompt: str | Callable[[Row], str]
    words: tuple[str, ...]
    labels: tuple[str, ...]
    calibration: str = ""
    group: str = ""
    source: str = ""

    def __call__(self, row: Row) -> list[Prompted]:
        """Return the one example of the row.

        Raises:
            DataError: If the row's label is outside the set.
        """
        prompt = self.prompt.format_map(row) if isinstance(self.prompt, str) else self.prompt(row)
        right = (label_index(row["label"], self.labels),) if "label" in row else ()
        group, source = (str(row.get(name, "")) for name in (self.group, self.source))
        return [Prompted(prompt, self.words, right, calibration_prompt=self.calibration, group=group, source=source)]
