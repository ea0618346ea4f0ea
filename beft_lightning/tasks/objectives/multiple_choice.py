"""Multiple choice: an encoder under a new head that gives each choice a score."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMultipleChoice, PreTrainedModel

from beft_lightning.tasks.objectives.classification import ClassificationObjective
from beft_lightning.tasks.objectives.objective import labelled_rows


class MultipleChoiceObjective(ClassificationObjective):
    """One choice of those of the example; the logits have shape ``(batch, choices)``."""

    auto_class = AutoModelForMultipleChoice
    not_inputs = (*ClassificationObjective.not_inputs, "choices", "choice_count")

    @property
    def config(self) -> dict[str, Any]:
        """Number of outputs: one for each choice, which is an input of its own."""
        return {"num_labels": 1}

    @property
    def output_names(self) -> tuple[str, ...]:
        """No names: the choices differ between examples."""
        return ()

    def logits(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the score of each choice, shape ``(batch, most choices)``, minus infinity where there is none."""
        logits = super().logits(model, batch)
        place = torch.arange(logits.shape[1], device=logits.device)
        return logits.masked_fill(place >= batch["choice_count"][:, None], float("-inf"))

    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return ``label`` and ``probabilities`` of each example: of its choices, by their columns or texts."""
        return labelled_rows(self.logits(model, batch).float().softmax(dim=-1), batch["choices"])

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the columns of the choices, or their texts where one column lists them."""
        return [names[choice] for names, choice in zip(batch["choices"], predictions.tolist(), strict=True)]
