"""Generation from columns: a prompt, and the answer to learn."""

from dataclasses import dataclass

from beft_lightning.data.prompt_task import Prompted
from beft_lightning.data.sources import Row
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class AnswerTemplate:
    r"""Makes the prompted example of a row with an answer, or of one without, to be predicted.

    Args:
        prompt: The prompt as a template with the columns in braces, such as ``"Question: {question}\nAnswer:"``.
        answer: Column of the answer: a text, or a list of acceptable texts, the first of which is learnt.
        one_line: Generated answers end with their line, so the answer to learn has to be one line.
    """

    prompt: str
    answer: str
    one_line: bool = False

    def __call__(self, row: Row) -> list[Prompted]:
        """Return the one example of the row.

        Raises:
            DataError: If there is an answer, but it is empty, no text, or has more lines than are generated.
        """
        prompt = self.prompt.format_map(row)
        if self.answer not in row:
            return [Prompted(prompt, ())]
        value = row[self.answer]
        texts = value if isinstance(value, list) and value else [value]
        for text in texts:
            self._check(text)
        # White space at the end of the prompt would belong to no token of the answer.
        space = "" if prompt[-1:].isspace() else " "
        learnt = f"{space}{texts[0].strip()}" + ("\n" if self.one_line else "")
        return [Prompted(prompt, (learnt,), answers=tuple((text,) for text in texts))]

    def _check(self, text: object) -> None:
        if text is None or (isinstance(text, str) and not text.strip()):
            raise DataError(f"column {self.answer!r} is empty. Fill it, or remove the row")
        if not isinstance(text, str):
            raise DataError(f"column {self.answer!r} is no text but {text!r}")
        if self.one_line and "\n" in text.strip():
            raise DataError(
                f"the answer in column {self.answer!r} has several lines, and with stop 'line' one is generated: set "
                "stop to 'end_of_text'"
            )
