"""Choice between options by their log-probability behind a prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.data.preprocessors.preprocessor import NO_LABEL
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.tasks.objectives.language_model import LanguageModelObjective
from beft_lightning.tasks.objectives.objective import labelled_rows
from beft_lightning.tasks.option_scores import (
    by_example,
    classification_loss,
    language_model_loss,
    option_log_probabilities,
    option_scores,
)


class OptionObjective(LanguageModelObjective[PromptTask]):
    """The option with the highest mean log-probability."""

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a training batch: over all options, or of the right option's tokens."""
        sums, lengths = option_log_probabilities(model, batch)
        if self.task.loss == "lm":
            return language_model_loss(sums, lengths)
        return classification_loss(sums, lengths, batch["option_row"], batch["labels"])

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the chosen option of each example, shape ``(batch,)``, and the loss where all labels are known.

        It is the loss of training: of several right options the first one's, and without calibration.
        """
        sums, lengths = option_log_probabilities(model, batch)
        predictions = self._compared(model, batch, sums, lengths).argmax(dim=-1)
        if not batch["labels"].numel() or (batch["labels"][:, 0] == NO_LABEL).any():
            return predictions, None
        labels = batch["labels"][:, 0]
        if self.task.loss != "lm":
            return predictions, classification_loss(sums, lengths, batch["option_row"], labels)
        right = torch.searchsorted(batch["option_row"], torch.arange(len(labels), device=labels.device)) + labels
        return predictions, language_model_loss(sums[right], lengths[right])

    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return ``label`` and ``probabilities`` of each example: of its options by their names, texts, or numbers."""
        probabilities = self.scores(model, batch).softmax(dim=-1)
        return labelled_rows(probabilities, self._names(batch))

    def scores(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the score of each example's options, shape ``(batch, most options)``; see :func:`option_scores`."""
        return self._compared(model, batch, *option_log_probabilities(model, batch))

    def _compared(self, model: PreTrainedModel, batch: dict[str, Any], sums: Tensor, lengths: Tensor) -> Tensor:
        blank = option_log_probabilities(model, batch["calibration"])[0] if "calibration" in batch else None
        return by_example(option_scores(sums, lengths, blank), batch["option_row"], len(batch["id"]))

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the chosen options by their names, texts, or numbers."""
        return [names[choice] for names, choice in zip(self._names(batch), predictions.tolist(), strict=True)]

    def _names(self, batch: dict[str, Any]) -> list[Sequence[str]]:
        """Return what the options of each example are called: by the task, by the example, or by their numbers."""
        if all(batch["candidates"]):
            return list(batch["candidates"])
        counts = torch.bincount(batch["option_row"], minlength=len(batch["id"])).tolist()
        return [self.task.labels or [str(number) for number in range(count)] for count in counts]
