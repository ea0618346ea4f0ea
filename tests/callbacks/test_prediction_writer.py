"""Predictions by example id."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from beft_lightning import LanguageTaskModule
from beft_lightning.callbacks import PredictionWriter
from beft_lightning.data import Glue, Squad, SuperGlue
from beft_lightning.errors import DataError
from tests.tiny import ForeignModule, token_batches


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


BOOLQ = {"question": "was it good", "passage": "the film"}
ANSWERS = [{"idx": number, "text": "the film", "label": number % 2} for number in range(2)]
PASSAGE = {"text": "it was good", "questions": [{"idx": 4, "question": "what ?", "answers": ANSWERS}]}
ARTICLE = {
    "title": "film",
    "paragraphs": [
        {
            "context": "a good film",
            "qas": [{"id": "q9", "question": "?", "answers": [{"text": "a", "answer_start": 0}]}],
        }
    ],
}


@pytest.mark.parametrize(
    ("data", "task", "file", "rows", "ids"),
    [
        (
            SuperGlue,
            "boolq",
            "val.jsonl",
            [{**BOOLQ, "idx": idx, "label": idx > 4} for idx in (7, 2, 5)],
            ["7", "2", "5"],
        ),
        (
            SuperGlue,
            "multirc",
            "val.jsonl",
            [{"idx": 1, "passage": PASSAGE}],
            [f'{{"paragraph": 1, "question": 4, "answer": {number}}}' for number in range(2)],
        ),
        (Squad, "squad", "dev.json", [{"data": [ARTICLE]}], ["q9"]),
    ],
    ids=["boolq", "multirc", "squad"],
)
def test_ids_are_those_of_the_file_in_its_order(
    data: Any, task: str, file: str, rows: list[Any], ids: list[str], decoder: str, make_trainer: Any, tmp_path: Path
) -> None:
    """And predictions have the names of labels."""
    (tmp_path / file).write_text("\n".join(map(json.dumps, rows)))
    module = data(decoder, task=task, prompt=True, data_dir=tmp_path, max_length=60)
    trainer = make_trainer(callbacks=[PredictionWriter()], logger=CSVLogger(tmp_path))
    trainer.predict(LanguageTaskModule(decoder, module.task, tune="value"), datamodule=module, return_predictions=False)
    found = predicted(trainer)
    assert [row["id"] for row in found] == ids
    assert data is Squad or {row["prediction"] for row in found} <= {"false", "true"}


class Foreign(ForeignModule):
    """Predicts rows of its own, or tensors."""

    def __init__(self, rows: bool) -> None:
        super().__init__()
        self.rows = rows

    def predict_step(self, batch: list[torch.Tensor], batch_idx: int, dataloader_idx: int = 0) -> Any:
        rows = [{"id": batch_idx, "prediction": [f"O{dataloader_idx}"]}]
        return {"rows": rows} if self.rows else batch[0]


class ForeignData(LightningDataModule):
    """Somebody else's DataModule, which has no task."""

    def predict_dataloader(self) -> Any:
        return [token_batches(), token_batches()]


@pytest.mark.parametrize("data", [ForeignData(), None])
def test_splits_of_a_foreign_datamodule_are_numbered(
    data: ForeignData | None, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[PredictionWriter()], logger=CSVLogger(tmp_path), limit_predict_batches=2)
    loaders = ForeignData().predict_dataloader() if data is None else None
    trainer.predict(Foreign(rows=True), loaders, datamodule=data)
    assert [(row["split"], row["id"], row["prediction"]) for row in predicted(trainer)] == [
        *(("0", "0", '["O0"]'), ("0", "1", '["O0"]')),
        *(("1", "0", '["O1"]'), ("1", "1", '["O1"]')),
    ]


class Repeating(Foreign):
    """Gives all examples one id, or ids of two types."""

    def predict_step(self, batch: list[torch.Tensor], batch_idx: int, dataloader_idx: int = 0) -> Any:
        return {"rows": [{"id": "a" if self.rows else ("b", 3)[batch_idx], "prediction": batch_idx}]}


def test_ids_that_repeat_are_an_error_and_those_of_two_types_are_not(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    options: Any = {"callbacks": [PredictionWriter()], "logger": CSVLogger(tmp_path), "limit_predict_batches": 2}
    with pytest.raises(DataError, match="the id 'a' is of several predictions"):
        make_trainer(**options).predict(Repeating(rows=True), token_batches())
    trainer = make_trainer(**options)
    trainer.predict(Repeating(rows=False), token_batches())
    assert [row["id"] for row in predicted(trainer)] == ["3", "b"]


def test_predictions_of_another_form_are_left_alone(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make_trainer(callbacks=[PredictionWriter()], logger=CSVLogger(tmp_path), limit_predict_batches=2)
    with pytest.warns(UserWarning, match="has written nothing: .* the predict_step of Foreign returns"):
        predictions = trainer.predict(Foreign(rows=False), token_batches())
    assert predictions is not None
    assert len(predictions) == 2
    assert not (Path(str(trainer.log_dir)) / "predictions.tsv").exists()
