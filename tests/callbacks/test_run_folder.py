"""The folder of a run: of its own for every logger, and without files of others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import Logger

from beft_lightning import BiasSelectionCallback
from beft_lightning.callbacks import RunSummary
from beft_lightning.callbacks.run_folder import own_path, run_folder
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


class Tracker(Logger):
    """A logger that keeps what it is given."""

    def __init__(self, save_dir: Path | None, version: int | str | None) -> None:
        super().__init__()
        self._save_dir, self._version = save_dir, version
        self.metrics: dict[str, float] = {}

    @property
    def save_dir(self) -> str | None:
        return None if self._save_dir is None else str(self._save_dir)

    @property
    def name(self) -> str:
        return "project"

    @property
    def version(self) -> int | str | None:
        return self._version

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics |= metrics

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.params = params


@pytest.mark.parametrize(("version", "names"), [("a1", ["a1", "a1"]), (3, ["version_3"] * 2), (None, ["0", "1"])])
def test_every_logger_has_a_folder_for_each_run(
    version: Any, names: list[str], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    for save_dir, root in ((tmp_path / "w", tmp_path / "w"), (None, tmp_path)):
        for name in names:
            trainer = make_trainer(logger=Tracker(save_dir, version))
            folder = run_folder(trainer)
            assert folder == root / "project" / (name if version is not None else f"version_{name}")
            folder.mkdir(parents=True, exist_ok=True)
            assert run_folder(trainer) == folder


def test_a_csv_logger_has_one(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    assert run_folder(make_trainer(logger=logger)) == Path(logger.log_dir)


def test_files_of_others_are_not_overwritten(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine")
    for trainer, names in ((make_trainer(), ("config-v1", "new")), (make_trainer(), ("config-v2", "new-v1"))):
        for _ in range(2):
            paths = [own_path(trainer, tmp_path, f"{name}.yaml") for name in ("config", "new")]
            assert [path.stem for path in paths] == list(names)
            for path in paths:
                path.touch()
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_without_a_logger_nothing_is_left_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: Any = {"accelerator": "cpu", "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=1, logger=False, callbacks=[BiasSelectionCallback(batches=2), RunSummary()], **options)
    trainer.fit(ForeignModule(), token_batches())
    assert not list(tmp_path.iterdir())
