"""What reaches the loggers: hyper-parameters, scores, and their picture."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.callbacks import RunSummary
from beft_lightning.callbacks.run_folder import run_folder
from beft_lightning.data import Glue

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def fit(backbone: str, sst2_dir: str, make_trainer: MakeTrainer) -> Callable[[Logger], Trainer]:
    def run(logger: Logger) -> Trainer:
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=16)
        callbacks = [BiasSelectionCallback(batches=2), RunSummary()]
        trainer = make_trainer(logger=logger, callbacks=callbacks)
        trainer.fit(LanguageTaskModule(backbone, data.task, learning_rate=1e-3), data)
        folder = run_folder(trainer)
        assert folder is not None
        assert {"summary.json", "scores.json", "scores.csv", "scores.png"} <= {path.name for path in folder.iterdir()}
        return trainer

    return run


def test_tensorboard(fit: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path)
    fit(logger)
    accumulator: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(logger.log_dir)
    events.Reload()
    assert {"bias_score/value", "val_accuracy"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["bias_scores"]
    params: Any = logger.hparams
    assert (params["learning_rate"], params["data"]["batch_size"]) == (1e-3, 16)


def test_wandb_offline(fit: Any, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="p")
    trainer = fit(logger)
    assert logger.experiment.config["data"]["batch_size"] == 16
    assert logger.experiment.summary["bias_score/value"] > 0
    assert len(list(tmp_path.rglob("media/images/bias_scores_*.png"))) == 1
    wandb.finish()
    second = WandbLogger(save_dir=tmp_path, offline=True, project="p")
    assert second.experiment.id != logger.experiment.id
    assert run_folder(make_trainer(logger=second)) != run_folder(trainer)
    wandb.finish()


def test_mlflow(fit: Any, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_location=str(tmp_path / "a"))
    fit(logger)
    run = logger.experiment.get_run(logger.run_id)
    assert run.data.params["data/batch_size"] == "16"
    assert run.data.metrics["bias_score/value"] > 0
    assert [file.path for file in logger.experiment.list_artifacts(logger.run_id)] == ["scores.png"]


class DoesNotStart(WandbLogger):
    """A service that cannot be reached."""

    @property
    def experiment(self) -> Any:
        raise ConnectionError("no answer from the service.\nDetails")


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ("tests.callbacks.test_tracking.DoesNotStart", "trainer.logger DoesNotStart did not start: no answer from"),
        ("lightning.pytorch.loggers.CometLogger", "Requirement 'comet"),
    ],
)
def test_a_logger_that_does_not_start_is_one_message(
    logger: str, message: str, argv: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv("fit", "--trainer.logger", logger)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_configuration_of_the_users_is_not_overwritten(
    argv: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the summary of another run, where a logger has one folder for all."""
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.logger=false", "--model.tune=head"]
    assert main(argv("fit", *options, f"--trainer.default_root_dir={tmp_path}")) == 0
    assert not (tmp_path / "config.yaml").exists()
    out = out.parent  # as there is no logger
    out.mkdir()
    (out / "config.yaml").write_text("mine")
    for _ in range(2):
        assert main(argv("fit", *options)) == 0
    assert (out / "config.yaml").read_text() == "mine"
    assert {"config-v1.yaml", "summary.json", "summary-v1.json"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "summary-v1.json").read_text())["trained_parameters"]
