"""Generation from columns: a prompt, and the answer to learn."""

from dataclasses import dataclass

from beft_lightning.data.prompt_task import Prompted, separator
from beft_lightning.data.sources import Row


@dataclass(frozen=True)
class AnswerTemplate:
    r"""Makes the prompted example of a row with an answer, or of one without, to be predicted.

    Args:
        prompt: The prompt as a template with the columns in braces, such as ``"Question: {question}\nAnswer:"``.
        answer: Column of the answer: a text, or a list of acceptable texts, the first of which is learnt.
    """

    prompt: str
    answer: str

    def __call__(self, row: Row) -> list[Prompted]:
        """Return the one example of the row."""
        prompt = self.prompt.format_map(row)
        if self.answer not in row:
            return [Prompted(prompt, ())]
        value = row[self.answer]
        texts = value if isinstance(value, list) else [value]
        answer = f"{separator(prompt)}{texts[0].strip()}"
        return [Prompted(prompt, (answer,), answers=tuple((text,) for text in texts))]
