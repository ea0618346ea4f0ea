"""Keep predictions by example id."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.files import write_atomically
from beft_lightning.strategies.collectives import gather


class PredictionWriter(BasePredictionWriter):
    """Write ``predictions.tsv`` (columns ``split``, ``id``, ``prediction``) into the log folder after ``predict``.

    Under several processes each rank has predicted a slice; all slices are gathered, sorted by id, and examples
    that the distributed sampler repeated to even out the slices are written once.
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
        folder = trainer.log_dir
        # With a single dataloader Lightning gives its batches directly, with several one list for each.
        loaders = predictions if predictions and isinstance(predictions[0], list) else [predictions]
        rows = [
            (split, row["id"], row["prediction"])
            for split, batches in enumerate(loaders)
            for batch in batches
            for row in batch["rows"]
        ]
        names = trainer.datamodule.task.evaluation_splits  # type: ignore[attr-defined]
        gathered = [row for part in gather(rows) for row in part]
        if trainer.is_global_zero and folder is not None:
            unique = {(names[split], ident): prediction for split, ident, prediction in gathered}
            path = write_atomically(Path(folder) / "predictions.tsv", lambda file: _write(file, unique))
            rank_zero_info(f"Wrote {len(unique):,} predictions to {path}")


def _write(path: Path, predictions: dict[tuple[str, int], Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["split", "id", "prediction"])
        writer.writerows((split, ident, prediction) for (split, ident), prediction in sorted(predictions.items()))
