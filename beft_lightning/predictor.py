"""Predictions of a trained model for new texts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from beft_lightning.data.batching import batches_of_like_length
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.text import TextPreprocessor
from beft_lightning.data.table.labels import is_empty
from beft_lightning.data.task import Task
from beft_lightning.errors import CheckpointError, DataError
from beft_lightning.export.loading import load_trained
from beft_lightning.export.merging import merge
from beft_lightning.models import DTYPES, load_tokenizer

#: A text, or a row with the task's text columns.
Input = str | Mapping[str, Any]
#: Columns that a prediction adds. A column of the input with such a name is kept as ``input_label`` and so on.
_ADDED = ("label", "probabilities", "score")
_KINDS = ("classification", "regression")


class Predictor:
    """A trained model with its tokenizer, ready for new texts.

    Args:
        model: The model with the trained values.
        tokenizer: Its tokenizer.
        task: The task it was trained on: kind, text columns, label names and longest input.
        autocast: Precision to compute in, if it is not that of the weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.task = task
        self._autocast = autocast
        self._preprocessor = TextPreprocessor(task, tokenizer, EncodingOptions(task.max_length))

    def predict(self, inputs: Iterable[Input], batch_size: int = 64) -> list[dict[str, Any]]:
        """Predict texts; neither their number nor their order changes.

        Args:
            inputs: Texts, or rows with the text columns of the task; a pair of texts has to be a row.
            batch_size: Most inputs in a batch. Inputs of about the same length share one.

        Returns:
            For each input its columns with ``label`` and ``probabilities`` (label name -> probability), or with
            ``score`` for regression. Columns of these names are kept as ``input_label`` and so on.

        Raises:
            DataError: If an input lacks a text column, or it holds no text.
        """
        if batch_size < 1:
            raise DataError(f"batch_size {batch_size} must be at least 1.")
        if isinstance(inputs, (str, Mapping)):
            raise DataError("predict takes a list of texts or rows: put a single one into brackets.")
        rows = [self._row(given, f"row {number}") for number, given in enumerate(inputs, start=1)]
        if not rows:
            return []
        texts = [{**{name: row[name] for name in self.task.text}, "id": i} for i, row in enumerate(rows)]
        logits = self._logits(self._preprocessor.encode(texts), batch_size)
        return [
            {f"input_{name}" if name in _ADDED else name: value for name, value in row.items()} | prediction
            for row, prediction in zip(rows, self._decode(logits), strict=True)
        ]

    def _row(self, given: Input, where: str) -> Mapping[str, Any]:
        """Return an input as a row, after a check of its text columns."""
        columns = self.task.text
        if isinstance(given, str):
            if len(columns) > 1:
                raise DataError(f"{where}: a text alone, but the model compares {' and '.join(columns)}: give both.")
            given = {columns[0]: given}
        if missing := [name for name in columns if name not in given]:
            raise DataError(
                f"{where}: no column {', '.join(map(repr, missing))}, which the model was trained on; there are: "
                f"{', '.join(given)}."
            )
        for name in columns:
            if is_empty(given[name]):
                raise DataError(f"{where}: column {name!r} is empty.")
            if not isinstance(given[name], str):
                raise DataError(f"{where}: column {name!r} is no text but {given[name]!r}.")
        return given

    @torch.inference_mode()
    def _logits(self, features: Sequence[dict[str, Any]], batch_size: int) -> Tensor:
        """Return the model's outputs in the order of the features, fp32, shape ``(inputs, outputs)``."""
        device = self.model.device
        outputs: dict[int, Tensor] = {}
        for batch in batches_of_like_length(features, self._preprocessor.length, batch_size):
            inputs = self._preprocessor.collate_evaluation(batch)
            ids = inputs.pop("id").tolist()
            with torch.autocast(device.type, self._autocast, enabled=self._autocast is not None):
                logits = self.model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
            outputs.update(zip(ids, logits.float().cpu(), strict=True))
        return torch.stack([outputs[i] for i in range(len(features))])

    def _decode(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return the predictions of the outputs, of shape ``(inputs, outputs)``."""
        if self.task.kind == "regression":
            return [{"score": score} for score in logits.squeeze(-1).tolist()]
        names = self.task.labels
        return [
            {"label": names[best], "probabilities": dict(zip(names, probabilities, strict=True))}
            for best, probabilities in zip(logits.argmax(dim=-1).tolist(), logits.softmax(dim=-1).tolist(), strict=True)
        ]


def load(path: str | Path, *, backbone: str | None = None, device: str | torch.device | None = None) -> Predictor:
    """Load a checkpoint as a model that predicts new texts.

    Args:
        path: A checkpoint of a fit of :class:`~beft_lightning.LanguageTaskModule`: classification or regression of
            texts.
        backbone: Location of the base now, if it is not where the fit found it.
        device: Where to compute; by default on an accelerator if there is one.

    Raises:
        CheckpointError: If the checkpoint is missing, damaged, of another kind of task, or does not say how its texts
            are encoded.
        ExportError: If it holds something that cannot be merged into the model, such as a prefix.
        BackboneError: If the base cannot be loaded.
    """
    record, model, trained = load_trained(path, backbone)
    task = _task(record, path)
    merge(model, trained)
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    model.to(device)  # type: ignore[arg-type]
    half = record["dtype"] in ("bfloat16", "float16")
    tokenizer = load_tokenizer(record["backbone"], record["gguf_file"])
    # Biases and head are fp32, as in the fit.
    return Predictor(model, tokenizer, task, DTYPES[record["dtype"]] if half else None)


def _task(record: Mapping[str, Any], path: str | Path) -> Task:
    """Return the task of a checkpoint's record of the model."""
    by_configuration = f"`predict --config CONFIG --ckpt_path {path}` with the config.yaml of its fit"
    if "task" not in record:
        raise CheckpointError(
            f"{path}: from a version whose checkpoints do not say how texts are encoded: use {by_configuration}, or "
            "continue the fit by an epoch, which writes it."
        )
    if record["task"]["kind"] not in _KINDS:
        raise CheckpointError(
            f"{path}: of the kind {record['task']['kind']!r}; new texts are predicted for {' and '.join(_KINDS)}. For "
            f"the data of the fit, use {by_configuration}."
        )
    return Task.from_dict(record["task"], record["labels"])
