"""Answers generated token by token."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from beft_lightning.data.chat_task import ChatTask
from beft_lightning.data.chat_template import turn_end
from beft_lightning.data.generation import end_of_text
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.tasks.objectives.language_model import LanguageModelObjective
from beft_lightning.tasks.option_scores import language_model_loss, option_log_probabilities


class GenerationObjective(LanguageModelObjective[PromptTask | ChatTask]):
    """An answer that ends as the task says.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer.
    """

    def __init__(self, task: PromptTask | ChatTask, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(task)
        self.tokenizer = tokenizer
        self._stop = self._stop_tokens()

    @classmethod
    def create(cls, task: PromptTask | ChatTask, load_tokenizer: Callable[[], PreTrainedTokenizerBase]) -> Self:
        """Return the objective with the backbone's tokenizer."""
        return cls(task, load_tokenizer())

    def _stop_tokens(self) -> list[int]:
        """Return the tokens that end an answer."""
        if self.task.generation.stop == "end_of_text":
            return [end_of_text(self.tokenizer)]
        # The last token of a line break, as some tokenizers put one before it; some know no line break at all.
        newline = self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
        return [token for token in (*newline, self.tokenizer.eos_token_id) if token is not None]

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the cross-entropy averaged over the batch's answer tokens."""
        return language_model_loss(*option_log_probabilities(model, batch))

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[list[str], Tensor | None]:
        """Return the generated answers, and the loss of the answers to learn where they are known."""
        return self.answers(model, batch), self.loss(model, batch["learnt"]) if "learnt" in batch else None

    def loss_weight(self, batch: dict[str, Any]) -> int:
        """Return the number of the answers' tokens, where they are known."""
        return len(batch["learnt"]["target_token"]) if "learnt" in batch else super().loss_weight(batch)

    def answers(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[str]:
        """Return the generated answers, greedy unless the task's options say otherwise."""
        prompt = batch["input_ids"]
        generate: Any = model.generate  # typed as a mixin's, which mypy takes for a Tensor
        output = generate(
            input_ids=prompt,
            attention_mask=batch["attention_mask"],
            max_new_tokens=self.task.generation.max_new_tokens,
            eos_token_id=self._stop,
            pad_token_id=self.tokenizer.pad_token_id
            if self.tokenizer.pad_token_id is not None
            else self.tokenizer.eos_token_id,
            **{"do_sample": False, "use_cache": True, **self.task.generation.options},
        )
        texts = self.tokenizer.batch_decode(output[:, prompt.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    def decode(self, predictions: list[str], batch: dict[str, Any]) -> list[Any]:
        """Return the answers as they are."""
        return predictions

    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the column ``text`` that a prediction adds to each row of a batch: the generated answer."""
        return [{"text": answer} for answer in self.answers(model, batch)]


class ChatObjective(GenerationObjective):
    """The answers of a conversation, each of which ends as the tokenizer's chat template ends a turn."""

    task: ChatTask

    def _stop_tokens(self) -> list[int]:
        return sorted({turn_end(self.tokenizer), self.tokenizer.eos_token_id} - {None})
