"""Generation from columns: a prompt, and the answer to learn."""

from dataclasses import dataclass

from beft_lightning.data.prompt_task import Prompted
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
        # White space at the end of the prompt would belong to no token of the answer.
        space = "" if prompt[-1:].isspace() else " "
        return [Prompted(prompt, (f"{space}{texts[0].strip()}",), answers=tuple((text,) for text in texts))]
