"""Answers generated token by token."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from beft_lightning.data.preprocessors.generation import MAX_NEW_TOKENS
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.tasks.objectives.language_model import LanguageModelObjective
from beft_lightning.tasks.option_scores import language_model_loss, option_log_probabilities


class GenerationObjective(LanguageModelObjective):
    """An answer that ends with its line.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer.
    """

    def __init__(self, task: PromptTask, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(task)
        self.tokenizer = tokenizer
        # The last token of a line break, as some tokenizers put one before it; some know no line break at all.
        newline = tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
        self._stop = [token for token in (*newline, tokenizer.eos_token_id) if token is not None]

    @classmethod
    def create(cls, task: PromptTask, load_tokenizer: Callable[[], PreTrainedTokenizerBase]) -> Self:
        """Return the objective with the backbone's tokenizer."""
        return cls(task, load_tokenizer())

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the cross-entropy averaged over the batch's answer tokens."""
        return language_model_loss(*option_log_probabilities(model, batch))

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[list[str], Tensor | None]:
        """Return the greedy answers; a loss is not computed."""
        prompt = batch["input_ids"]
        generate: Any = model.generate  # typed as a mixin's, which mypy takes for a Tensor
        output = generate(
            input_ids=prompt,
            attention_mask=batch["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=self._stop,
            pad_token_id=self.tokenizer.pad_token_id
            if self.tokenizer.pad_token_id is not None
            else self.tokenizer.eos_token_id,
        )
        texts = self.tokenizer.batch_decode(output[:, prompt.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts], None

    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the answer of each example as its ``text``."""
        return [{"text": text} for text in self.evaluate(model, batch)[0]]

    def decode(self, predictions: list[str], batch: dict[str, Any]) -> list[Any]:
        """Return the answers as they are."""
        return predictions
