"""The summary of a run."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning.callbacks import AdapterCheckpoint, RunSummary
from beft_lightning.data import Glue

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def data(backbone: str, sst2_dir: str) -> Glue:
    return Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)


def read(trainer: Trainer) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(str(trainer.log_dir)) / "summary.json").read_text())
    return content


def test_a_fit_leaves_its_numbers(
    backbone: str, data: Glue, make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [BiasSelectionCallback(), ModelCheckpoint(save_last=True), RunSummary()]
    trainer = make_trainer(callbacks=callbacks, logger=CSVLogger(tmp_path), max_epochs=3, enable_checkpointing=True)
    module = LanguageTaskModule(backbone, data.task)
    trainer.fit(module, datamodule=data)
    summary = read(trainer)
    assert summary["metrics"]["val_accuracy"] == pytest.approx(trainer.callback_metrics["val_accuracy"].item())
    assert summary["selected"] == callbacks[0].selected  # type: ignore[attr-defined]
    assert summary["trained_parameters"] == sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert summary["total_parameters"] == sum(p.numel() for p in module.parameters())
    printed = capsys.readouterr().out.splitlines()
    assert f"checkpoint: {trainer.checkpoint_callback.last_model_path}" in printed  # type: ignore[union-attr]
    assert f"files: {trainer.log_dir}" in printed  # each in one line, however long
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
    assert summary["trained_parameters"] is None  # there is no checkpoint
    assert summary["seconds"]["train"] == 0


@pytest.mark.parametrize("tune", ["auto", "value"])
def test_an_evaluated_checkpoint_says_what_was_trained(
    tune: str, backbone: str, data: Glue, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def trainer_with(name: str, **options: Any) -> Trainer:
        callbacks = [BiasSelectionCallback(batches=2)] if tune == "auto" else []
        ours = [*callbacks, AdapterCheckpoint(), RunSummary()]
        return make_trainer(callbacks=ours, logger=CSVLogger(tmp_path, name), **options)

    trainer = trainer_with("fit")
    trainer.fit(LanguageTaskModule(backbone, data.task, tune=tune), datamodule=data)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    validation = trainer_with("validate")
    module = LanguageTaskModule(backbone, data.task, tune=tune)
    validation.validate(module, data, ckpt_path=tmp_path / "trained.ckpt", verbose=False)
    fitted, evaluated = read(trainer), read(validation)
    assert evaluated["trained_parameters"] == fitted["trained_parameters"] < fitted["total_parameters"]
    assert evaluated["selected"] == fitted["selected"]
    assert evaluated["total_parameters"] == fitted["total_parameters"]


def test_a_fit_that_has_nothing_left_to_do_says_so(
    backbone: str, data: Glue, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def fit(epochs: int, checkpoint: Path | None = None) -> list[str]:
        trainer = make_trainer(callbacks=[AdapterCheckpoint(), RunSummary()], max_epochs=epochs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "trained.ckpt")
        return [str(warning.message) for warning in caught if "Nothing was trained" in str(warning.message)]

    assert fit(1) == []
    (warning,) = fit(1, tmp_path / "trained.ckpt")
    assert "trained.ckpt has reached epoch 1 and step 6, and this fit ends at trainer.max_epochs 1" in warning
    assert fit(2, tmp_path / "trained.ckpt") == []
