"""Objectives: the loss and the predictions of a model, one for each kind of task."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from beft_lightning.data.task import TaskRecord
from beft_lightning.tasks.objectives.classification import ClassificationObjective, RegressionObjective
from beft_lightning.tasks.objectives.free_text import FreeTextObjective
from beft_lightning.tasks.objectives.generation import ChatObjective, GenerationObjective
from beft_lightning.tasks.objectives.media import AudioObjective, ImageObjective
from beft_lightning.tasks.objectives.multi_label import MultiLabelObjective
from beft_lightning.tasks.objectives.multiple_choice import MultipleChoiceObjective
from beft_lightning.tasks.objectives.objective import Objective
from beft_lightning.tasks.objectives.options import OptionObjective
from beft_lightning.tasks.objectives.token_classification import TokenClassificationObjective

#: Kind of task -> its objective.
OBJECTIVES: Mapping[str, type[Objective[Any]]] = {
    "classification": ClassificationObjective,
    "regression": RegressionObjective,
    "multi_label": MultiLabelObjective,
    "token_classification": TokenClassificationObjective,
    "multiple_choice": MultipleChoiceObjective,
    "choice": OptionObjective,
    "generation": GenerationObjective,
    "chat": ChatObjective,
    "text": FreeTextObjective,
    "image_classification": ImageObjective,
    "audio_classification": AudioObjective,
}


def make_objective(task: TaskRecord, load_tokenizer: Callable[[], PreTrainedTokenizerBase]) -> Objective[Any]:
    """Return the objective of a task.

    Args:
        task: The task's record.
        load_tokenizer: Loads the backbone's tokenizer; called only if the objective needs it.
    """
    return OBJECTIVES[task.kind].create(task, load_tokenizer)


__all__ = ["OBJECTIVES", "Objective", "make_objective"]
