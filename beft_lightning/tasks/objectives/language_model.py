"""The part that all objectives of causal language models share."""

from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from beft_lightning.models import check_language_model
from beft_lightning.tasks.objectives.objective import Objective, Record
from beft_lightning.tasks.option_scores import row_inputs


class LanguageModelObjective(Objective[Record]):
    """Tokens behind others, such as an answer behind a prompt, from the language model's own head."""

    auto_class = AutoModelForCausalLM

    def inputs(self, model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the model for a batch; rows with several options get their mask."""
        return row_inputs(model, batch)[1] if "segment_ids" in batch else super().inputs(model, batch)

    def check_model(self, model: PreTrainedModel) -> None:
        """Check that the model predicts tokens from left to right.

        Raises:
            BackboneError: If it is an encoder.
        """
        check_language_model(model, self.task.name)
