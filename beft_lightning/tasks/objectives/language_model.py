"""The part that all objectives of causal language models share."""

from transformers import AutoModelForCausalLM, PreTrainedModel

from beft_lightning.models import check_language_model
from beft_lightning.tasks.objectives.objective import Objective, Record


class LanguageModelObjective(Objective[Record]):
    """Tokens behind others, such as an answer behind a prompt, from the language model's own head."""

    auto_class = AutoModelForCausalLM

    def check_model(self, model: PreTrainedModel) -> None:
        """Check that the model predicts tokens from left to right.

        Raises:
            BackboneError: If it is an encoder.
        """
        check_language_model(model, self.task.name)
