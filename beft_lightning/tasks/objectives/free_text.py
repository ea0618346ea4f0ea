"""Free text: every token is predicted from those before it."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.data.free_text_task import FreeTextTask
from beft_lightning.tasks.objectives.language_model import LanguageModelObjective
from beft_lightning.tasks.option_scores import language_model_loss, option_log_probabilities


class FreeTextObjective(LanguageModelObjective[FreeTextTask]):
    """The likelihood of a text; a prediction is the sum of its tokens' log-probabilities, and their number."""

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the cross-entropy averaged over the batch's tokens."""
        return language_model_loss(*option_log_probabilities(model, batch))

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the predictions of an evaluation batch, shape ``(batch, 2)``, and its loss."""
        sums, lengths = option_log_probabilities(model, batch)
        return torch.stack([sums, lengths], dim=1), language_model_loss(sums, lengths)

    def loss_weight(self, batch: dict[str, Any]) -> int:
        """Return the number of tokens that are scored."""
        return len(batch["target_token"])

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the perplexity of each text."""
        return (-predictions[:, 0] / predictions[:, 1]).exp().tolist()

    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the columns that a prediction adds to each row of a batch.

        They are ``loss``, the cross-entropy averaged over the text's tokens, and ``perplexity``, its exponential.
        """
        predictions, _ = self.evaluate(model, batch)
        losses = (-predictions[:, 0] / predictions[:, 1]).tolist()
        perplexities = self.decode(predictions, batch)
        return [{"loss": loss, "perplexity": p} for loss, p in zip(losses, perplexities, strict=True)]
