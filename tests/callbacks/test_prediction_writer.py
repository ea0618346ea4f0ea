"""Predictions by example id."""

import csv
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from beft_lightning import LanguageTaskModule
from beft_lightning.callbacks import PredictionWriter
from beft_lightning.data import Glue


def predicted(trainer: Trainer) -> list[dict[str, str]]:
    with (Path(str(trainer.log_dir)) / "predictions.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_predictions_do_not_depend_on_the_batches(
    backbone: str, sst2_dir: str, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    module = LanguageTaskModule(backbone, Glue.tasks["sst2"], tune="value")
    tables = []
    for size in (3, 64):
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, eval_batch_size=size)
        trainer = make_trainer(callbacks=[PredictionWriter()], logger=CSVLogger(tmp_path))
        trainer.predict(module, datamodule=data, return_predictions=False)
        tables.append(predicted(trainer))
    assert tables[0] == tables[1]
    assert [row["id"] for row in tables[0]] == [str(i) for i in range(20)]
    assert {row["split"] for row in tables[0]} == {"validation"}
    assert {row["prediction"] for row in tables[0]} <= {"negative", "positive"}


def test_several_splits_are_told_apart(backbone: str, make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    for name, rows in (("matched", 2), ("mismatched", 3)):
        lines = "sentence1\tsentence2\tgold_label\n" + "the film\tthe plot\tneutral\n" * rows
        (tmp_path / f"dev_{name}.tsv").write_text(lines)
    data = Glue(backbone, task="mnli", data_dir=tmp_path)
    trainer = make_trainer(callbacks=[PredictionWriter()], logger=CSVLogger(tmp_path))
    trainer.predict(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data, return_predictions=False)
    assert [(row["split"], row["id"]) for row in predicted(trainer)] == [
        *(("validation_matched", str(i)) for i in range(2)),
        *(("validation_mismatched", str(i)) for i in range(3)),
    ]
