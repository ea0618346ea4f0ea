"""Predictions of a trained model for new inputs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from transformers import PreTrainedModel

from beft_lightning.data.batching import batches_of_like_length
from beft_lightning.data.preprocessors import PREPROCESSORS, EncodingOptions, Preprocessor
from beft_lightning.data.sources import Row
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import BeftError, DataError
from beft_lightning.tasks.objectives import Objective, make_objective

#: A text, an image or a sound alone, or a row with the task's columns.
Input = Any


class Predictor:
    """A trained model with its tokenizer or other processor, ready for new inputs.

    Args:
        model: The model with the trained values.
        tokenizer: Its tokenizer, image processor or feature extractor.
        task: The task it was trained on.
        autocast: Precision to compute in, if it is not that of the weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        task: TaskRecord,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.task = task
        self._autocast = autocast
        self._preprocessor: Preprocessor = PREPROCESSORS[task.kind](task, tokenizer, EncodingOptions(task.max_length))
        self._objective: Objective[Any] = make_objective(task, lambda: tokenizer)

    def predict(self, inputs: Iterable[Input], batch_size: int = 64) -> list[dict[str, Any]]:
        """Predict inputs, in their order.

        Args:
            inputs: Rows with the columns of the task, without label or answer, or objects of a benchmark's original
                file, which may hold several rows; texts, or images or sounds (paths, bytes or arrays), alone where the
                task has one column.
            batch_size: Most rows in a batch. Rows of about the same length share one.

        Returns:
            For each row its columns, and what the model predicts: ``label`` and ``probabilities`` (label name ->
            probability), ``score`` or ``text``, by the kind of task. Columns of these names are kept as ``input_label``
            and so on, with as many ``input_`` as make the name a new one.

        Raises:
            DataError: If an input lacks a column, or one is empty or of another type.
            BeftError: If what the model gives for an input is not finite.
        """
        if isinstance(inputs, (str, Mapping)):
            raise DataError("predict takes a list of texts or rows: put a single one into brackets.")
        return self.predict_located(((f"row {n}", given) for n, given in enumerate(inputs, start=1)), batch_size)

    def predict_located(self, inputs: Iterable[tuple[str, Input]], batch_size: int = 64) -> list[dict[str, Any]]:
        """Do the same for inputs each of which stands behind its place, such as file and row, for error messages."""
        check_batch_size(batch_size)
        rows = ((where, input_row(self.task, given, where)) for where, given in inputs)
        found = [(where, *pair) for where, row in rows for pair in self.task.parse_input(row, where)]
        if not found:
            return []
        examples = self.task.numbered([example for _, _, example in found])
        predictions = self._predictions(self._preprocessor.encode(examples), batch_size)
        for (where, *_), prediction in zip(found, predictions, strict=True):
            if not is_finite(prediction):
                raise BeftError(
                    f"{where}: the model's outputs are not finite. The trained values have diverged, or the weights "
                    "overflow in this precision: look at the fit's loss, or export or train in float32 or bfloat16."
                )
        return [_beside(row, prediction) for (_, row, _), prediction in zip(found, predictions, strict=True)]

    @torch.inference_mode()
    def _predictions(self, features: Sequence[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """Return the predicted columns in the order of the features."""
        device = self.model.device
        predicted: dict[int, dict[str, Any]] = {}
        for examples in batches_of_like_length(features, self._preprocessor.length, batch_size):
            batch = move_data_to_device(self._preprocessor.collate_evaluation(examples), device)
            with torch.autocast(device.type, self._autocast, enabled=self._autocast is not None):
                rows = self._objective.rows(self.model, batch)
            predicted.update(zip(batch["id"].tolist(), rows, strict=True))
        return [predicted[i] for i in range(len(features))]


def input_row(task: TaskRecord, given: Input, where: str) -> Row:
    """Return an input as a row.

    Args:
        task: The task that it is an input of.
        given: A row, or a text where the task has one column.
        where: The place of the input, for the error.

    Raises:
        DataError: If it is neither.
    """
    if isinstance(given, Mapping):
        return given
    if not isinstance(given, task.bare_input):
        raise DataError(f"{where}: no text or row with columns but {given!r}.")
    columns = task.input_columns
    if len(columns) != 1:
        raise DataError(
            f"{where}: a text alone, but the model reads {' and '.join(columns)}: give a row with these columns."
        )
    return {columns[0]: given}


def check_batch_size(batch_size: int) -> None:
    """Check that a batch holds something.

    Raises:
        DataError: If it does not.
    """
    if batch_size < 1:
        raise DataError(f"batch_size {batch_size} must be at least 1.")


def is_finite(result: Any) -> bool:
    """Return whether all numbers of a prediction are finite: JSON has no others."""
    if isinstance(result, float):
        return math.isfinite(result)
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, list) else ()
    return all(map(is_finite, parts))


def _beside(row: Row, prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row and of its prediction; columns of the row get another name where both have one."""
    kept = {name: value for name, value in row.items() if name not in prediction}
    for name in row:
        if name in prediction:
            free = f"input_{name}"
            while free in kept or free in prediction or free in row:
                free = f"input_{free}"
            kept[free] = row[name]
    return {**kept, **prediction}
