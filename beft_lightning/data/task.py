"""A task as a declarative record: everything about it that is not code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from beft_lightning.errors import DataError

#: Name of the split of examples set aside from the training split.
DEV = "dev"

Kind = Literal["classification", "regression", "multiple_choice"]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """On what a task is evaluated.

    Args:
        evaluation_splits: Splits to report results on.
        dev: Evaluate during training on examples set aside from the training split instead, so that whatever is
            chosen by them, such as the best epoch, has not seen the reported splits.
    """

    evaluation_splits: tuple[str, ...] = ("validation",)
    dev: bool = False

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """Splits to evaluate on during training."""
        return (DEV,) if self.dev else self.evaluation_splits


@dataclass(frozen=True)
class Task(Evaluated):
    """A task, told in data.

    Args:
        name: Short name, as in ``--data.task``.
        kind: ``classification``, ``regression`` or ``multiple_choice``.
        text: The one or two columns that hold the text; for multiple choice, the columns of the context.
        labels: Label names in the order of their ids; empty for regression; for multiple choice, the columns of the
            choices.
        metrics: Names of the metrics to report, the main one first.
        learning_rate: Recommended learning rate when biases are trained.
        epochs: Recommended number of epochs.
        sizes: Number of training examples in the ``low``, ``medium`` and ``high`` data regimes.
        hub: Dataset id and configuration on the hub.
        columns: Column in the original file -> the column meant here, where the names differ.
        header: Column names of the original file, if it has no header line of its own.
    """

    name: str
    kind: Kind
    text: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    learning_rate: float = 1e-3
    epochs: int = 30
    sizes: Mapping[str, int] = field(default_factory=dict)
    hub: tuple[str, str] = ("", "")
    columns: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of model outputs: one per label; one for regression and for each choice."""
        return len(self.labels) if self.kind == "classification" else 1

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The columns that hold text."""
        return (*self.text, *self.labels) if self.kind == "multiple_choice" else self.text

    def label_id(self, value: object, where: str) -> int | float:
        """A raw label as the number to train on.

        Args:
            value: Label name, id, boolean or score, as text or not, as the original file or the hub has it.
            where: File and line, for the error.

        Raises:
            DataError: If the label is outside the set.
        """
        if self.kind == "regression":
            try:
                score = float(str(value))
            except ValueError:
                score = math.nan
            if not math.isfinite(score):
                raise DataError(f"{where}: {value!r} is not a number, as the labels of {self.name} must be.")
            return score
        if isinstance(value, bool):
            value = int(value)
        text = str(value)
        if text in self.labels:
            return self.labels.index(text)
        if text.isdecimal() and int(text) < len(self.labels):
            return int(text)
        raise DataError(
            f"{where}: label {text!r} is outside the set of {self.name}: {', '.join(self.labels)} "
            f"(or 0 to {len(self.labels) - 1})."
        )
