"""Choice between options by their log-probability behind a prompt."""

from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.tasks.metrics import predicted_texts
from beft_lightning.tasks.option_scores import (
    by_example,
    classification_loss,
    language_model_loss,
    option_log_probabilities,
)


class OptionObjective:
    """A causal language model choosing the option with the highest mean log-probability.

    Args:
        task: The task's record.
    """

    auto_class: Any = AutoModelForCausalLM

    def __init__(self, task: PromptTask) -> None:
        self.task = task
        #: What the backbone's config has to say.
        self.config: dict[str, Any] = {}

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """The loss of a training batch: over all options, or of the right option's tokens."""
        sums, lengths = option_log_probabilities(model, batch)
        if self.task.loss == "lm":
            return language_model_loss(sums, lengths)
        return classification_loss(sums, lengths, batch["option_row"], batch["label"])

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[list[int], Tensor | None]:
        """The chosen option of each example; there is no loss, as an example may have several right options.

        With calibration, options compare by the sum of their log-probability less the sum behind the prompt without
        content; without, by its mean.
        """
        sums, lengths = option_log_probabilities(model, batch)
        if "calibration" in batch:
            scores = sums - option_log_probabilities(model, batch["calibration"])[0]
        else:
            scores = sums / lengths
        chosen = by_example(scores, batch["option_row"], len(batch["id"])).argmax(dim=-1)
        return chosen.tolist(), None

    def decode(self, predicted: list[int], batch: dict[str, Any]) -> list[Any]:
        """Predictions for people: the chosen texts, or the option's number where the options have no names."""
        return predicted_texts(predicted, batch) if all(batch["candidates"]) else predicted
