"""Keep predictions by example id."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from beft_lightning.callbacks.run_folder import own_path, run_folder
from beft_lightning.errors import DataError
from beft_lightning.files import write_atomically
from beft_lightning.strategies.collectives import gather


class PredictionWriter(BasePredictionWriter):
    """Write ``predictions.tsv`` (columns ``split``, ``id``, ``prediction``) into the log folder after ``predict``.

    Splits have the names that the DataModule's task gives them, or else numbers. Ids are those of the file (``idx`` of
    SuperGLUE, ``id`` of SQuAD), or else the examples' places in the split. Nested ids and lists, such as tags, are
    JSON. Predictions of another form than ``LanguageTaskModule``'s are left alone, with a warning.

    With several processes each has predicted a part. All parts are gathered and come in the order of the file; examples
    that the distributed sampler repeated are written once.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gather and write."""
        # Asked on every rank: it is broadcast. Predictions are wanted without a logger, too.
        folder = run_folder(trainer) or Path(trainer.default_root_dir)
        # With a single dataloader Lightning gives its batches directly, with several one list for each.
        loaders = predictions if predictions and isinstance(predictions[0], list) else [predictions]
        parts = gather([_rows(split, batch) for split, batches in enumerate(loaders) for batch in batches])
        gathered = [rows for part in parts for rows in part]
        if any(rows is None for rows in gathered):
            rank_zero_warn(
                "PredictionWriter has written nothing: it takes predictions of the form {'rows': [{'id': 3, "
                f"'prediction': 'yes'}}]}} for each batch, and the predict_step of {type(pl_module).__name__} returns "
                "others. `trainer.predict` returns them; a BasePredictionWriter of your own can write them."
            )
            return
        _check_ids(parts)  # In all processes, which have the same parts: all stop, or none does.
        if trainer.is_global_zero:
            names = _split_names(trainer, len(loaders))
            unique = {(names[split], number): prediction for rows in gathered for split, number, prediction in rows}
            file_id = getattr(trainer.datamodule, "file_id", lambda split, number: number)  # type: ignore[attr-defined]
            rows = [
                (split, _text(file_id(split, number)), _text(p))
                for (split, number), p in sorted(unique.items(), key=_place)
            ]
            path = write_atomically(own_path(trainer, folder, "predictions.tsv"), lambda file: _write(file, rows))
            rank_zero_info(f"Wrote {len(rows):,} predictions to {path}")


def _rows(split: int, batch: Any) -> list[tuple[int, Any, Any]] | None:
    """Return split, id and prediction of each example of a batch; nothing if the predictions have another form."""
    rows = batch.get("rows") if isinstance(batch, Mapping) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, Mapping) and {"id", "prediction"} <= {*row} for row in rows
    ):
        return None
    return [(split, row["id"], row["prediction"]) for row in rows]


def _check_ids(parts: Sequence[Sequence[Any]]) -> None:
    """Check that no process has predicted two examples of one id: only the last one would be written.

    Raises:
        DataError: If ids repeat.
    """
    for part in parts:
        count = Counter((split, number) for rows in part for split, number, _ in rows)
        if repeated := [number for (_, number), times in count.items() if times > 1]:
            raise DataError(
                f"the id {repeated[0]!r} is of several predictions, of which predictions.tsv could hold one only: "
                "let predict_step give each example of a split an id of its own, or leave out PredictionWriter."
            )


def _place(item: tuple[tuple[str, Any], Any]) -> tuple[str, str, Any]:
    """Return what rows are sorted by: ids of one type by their order."""
    (split, number), _ = item
    return split, type(number).__name__, number


def _split_names(trainer: Trainer, count: int) -> Sequence[str]:
    """Return the names of the predicted splits; those of a foreign DataModule, or of plain dataloaders, are numbers."""
    task = getattr(trainer.datamodule, "task", None)  # type: ignore[attr-defined]
    names: Sequence[str] = getattr(task, "evaluation_splits", ())
    return names if len(names) == count else [str(number) for number in range(count)]


def _text(value: Any) -> Any:
    """Return an id or a prediction as it is written: a nested one as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list | tuple) else value


def _write(path: Path, rows: Sequence[tuple[str, Any, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["split", "id", "prediction"])
        writer.writerows(rows)
