"""Multiple choice: an encoder under a new head that gives each choice a score."""

from typing import Any

from transformers import AutoModelForMultipleChoice

from beft_lightning.tasks.objectives.classification import ClassificationObjective


class MultipleChoiceObjective(ClassificationObjective):
    """One choice of those of the example; the logits have shape ``(batch, choices)``."""

    auto_class = AutoModelForMultipleChoice

    @property
    def config(self) -> dict[str, Any]:
        """Number of outputs: one for each choice, which is an input of its own."""
        return {"num_labels": 1}

    @property
    def output_names(self) -> tuple[str, ...]:
        """No names: the choices differ between examples."""
        return ()
