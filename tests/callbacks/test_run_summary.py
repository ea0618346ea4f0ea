"""The summary of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning.callbacks import RunSummary
from beft_lightning.data import Glue

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def data(backbone: str, sst2_dir: str) -> Glue:
    return Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)


def read(trainer: Trainer) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(str(trainer.log_dir)) / "summary.json").read_text())
    return content


def test_a_fit_leaves_its_numbers(backbone: str, data: Glue, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [BiasSelectionCallback(), ModelCheckpoint(save_last=True), RunSummary()]
    trainer = make_trainer(callbacks=callbacks, logger=CSVLogger(tmp_path), max_epochs=3, enable_checkpointing=True)
    module = LanguageTaskModule(backbone, data.task)
    trainer.fit(module, datamodule=data)
    summary = read(trainer)
    assert summary["metrics"]["val_accuracy"] == pytest.approx(trainer.callback_metrics["val_accuracy"].item())
    assert summary["selected"] == callbacks[0].selected  # type: ignore[attr-defined]
    assert summary["trained_parameters"] == sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert summary["total_parameters"] == sum(p.numel() for p in module.parameters())
    seconds = summary["seconds"]
    assert list(seconds) == ["score", "train", "train_epoch", "checkpoint"]
    assert all(value > 0 for value in seconds.values())
    assert seconds["train_epoch"] < seconds["train"]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_an_evaluation_leaves_its_metrics(
    stage: str, backbone: str, data: Glue, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[RunSummary()], logger=CSVLogger(tmp_path))
    getattr(trainer, stage)(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data, verbose=False)
    summary = read(trainer)
    assert f"{'val' if stage == 'validate' else 'test'}_accuracy" in summary["metrics"]
    assert summary["selected"] == "value"
    assert summary["seconds"]["train"] == 0
