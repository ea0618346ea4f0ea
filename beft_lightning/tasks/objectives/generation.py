"""Answers generated word by word."""

from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from beft_lightning.data.prompt_preprocessor import MAX_NEW_TOKENS
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.tasks.option_scores import language_model_loss, option_log_probabilities


class GenerationObjective:
    """A causal language model that writes its answer, up to the end of the line.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer.
    """

    auto_class: Any = AutoModelForCausalLM

    def __init__(self, task: PromptTask, tokenizer: PreTrainedTokenizerBase) -> None:
        self.task = task
        self.tokenizer = tokenizer
        #: What the backbone's config has to say.
        self.config: dict[str, Any] = {}
        # The last token of a line break, as some tokenizers put one before it; some know no line break at all.
        newline = tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
        self._stop = [token for token in (*newline, tokenizer.eos_token_id) if token is not None]

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Cross-entropy of the answer's tokens, averaged over the batch's."""
        return language_model_loss(*option_log_probabilities(model, batch))

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[list[str], Tensor | None]:
        """The greedy answers; a loss is not computed."""
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

    def decode(self, predicted: list[str], batch: dict[str, Any]) -> list[Any]:
        """Predictions for people: as they are."""
        return predicted
