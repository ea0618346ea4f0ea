"""Choice between options by their log-probability behind a prompt."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.tasks.metrics import predicted_texts
from beft_lightning.tasks.objectives.language_model import LanguageModelObjective
from beft_lightning.tasks.option_scores import (
    by_example,
    classification_loss,
    language_model_loss,
    option_log_probabilities,
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
        """Return the chosen option of each example, shape ``(batch,)``.

        There is no loss, as an example may have several right options. With calibration, options compare by the sum
        of their log-probability less the sum behind the prompt without content; without, by its mean.
        """
        sums, lengths = option_log_probabilities(model, batch)
        if "calibration" in batch:
            scores = sums - option_log_probabilities(model, batch["calibration"])[0]
        else:
            scores = sums / lengths
        return by_example(scores, batch["option_row"], len(batch["id"])).argmax(dim=-1), None

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the chosen texts, or the options' numbers where the options have no texts to report."""
        return predicted_texts(predictions, batch) if all(batch["candidates"]) else predictions.tolist()
