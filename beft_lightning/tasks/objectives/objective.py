"""The interface of objectives."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from beft_lightning.data.task import TaskRecord

Record = TypeVar("Record", bound=TaskRecord)


class Objective(ABC, Generic[Record]):
    """Computes the loss and the predictions of a kind of task, given the model.

    Args:
        task: The task's record.
    """

    #: The class of transformers that builds the model, such as ``AutoModelForCausalLM``.
    auto_class: ClassVar[Any]

    def __init__(self, task: Record) -> None:
        self.task = task

    @classmethod
    def create(cls, task: Record, load_tokenizer: Callable[[], PreTrainedTokenizerBase]) -> Self:
        """Return the objective of a task; a subclass that needs the backbone's tokenizer loads it here."""
        return cls(task)

    @property
    def config(self) -> dict[str, Any]:
        """Options of the backbone's config that the task determines."""
        return {}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, to store with the model; empty where they have none."""
        return ()

    def check_model(self, model: PreTrainedModel) -> None:
        """Check that the model suits the task.

        Raises:
            BackboneError: If it does not.
        """

    def start_head(self, model: PreTrainedModel) -> None:
        """Give a new head the starting values that the task knows, beside random ones."""

    def inputs(self, model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the model for a batch: the entries that it takes, without ``labels``."""
        taken = inspect.signature(model.forward).parameters
        return {name: value for name, value in batch.items() if name in taken and name != "labels"}

    @abstractmethod
    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a training batch, a scalar."""

    @abstractmethod
    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[Any, Tensor | None]:
        """Return the predictions of an evaluation batch, and its loss if it has one."""

    def loss_weight(self, batch: dict[str, Any]) -> int:
        """Return the number of what the loss of an evaluation batch is averaged over: its examples, or its tokens."""
        return len(batch["id"])

    @abstractmethod
    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the columns that a prediction adds to each row of a batch.

        The batch is an evaluation batch whose examples may have no labels.
        """

    @abstractmethod
    def decode(self, predictions: Any, batch: dict[str, Any]) -> list[Any]:
        """Return the predictions of a batch as people read them, one for each example."""


def labelled_rows(probabilities: Tensor, names: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return the most probable label of each example, and the probabilities of all its labels by name.

    Args:
        probabilities: Shape ``(examples, most labels)``; columns behind an example's own labels are ignored.
        names: The label names of each example.
    """
    values = probabilities.tolist()
    rows = [dict(zip(labels, row, strict=False)) for labels, row in zip(names, values, strict=True)]
    return [{"label": max(row, key=row.__getitem__), "probabilities": row} for row in rows]
