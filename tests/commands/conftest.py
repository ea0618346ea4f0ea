"""Fixtures shared by the tests of the commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from beft_lightning import LanguageTaskModule
from beft_lightning.commands.comparison import Comparison
from beft_lightning.compared_run import Run
from beft_lightning.data import Glue

MakeTrainer = Callable[..., Trainer]
RATE = 1e-2


def record(tune: str = "value", seed: int = 0, **changes: Any) -> Run:
    """A run that nobody made."""
    options: dict[str, Any] = {
        "learning_rate": RATE,
        "last": {"accuracy": 0.5 + seed / 8, "loss": 0.25},
        "best": None,
        "best_epoch": None,
        "history": [0.5],
        "trained_parameters": 10,
        "total_parameters": 100,
        "seconds": 1.5,
        "peak_memory": None,
    }
    return Run(tune, seed, **{**options, **changes})


@pytest.fixture
def make(backbone: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path) -> Any:
    """Make a comparison on a tiny BERT."""

    def build(
        description: str = "tiny", dev_size: int = 8, seed: int | None = None, out: str = "out", **options: Any
    ) -> Comparison:
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, dev_size=dev_size, seed=seed)
        module = LanguageTaskModule(backbone, data.task, learning_rate=RATE)
        trainers = lambda callbacks: make_trainer(callbacks=callbacks, max_epochs=2, gradient_clip_val=1.0)  # noqa: E731
        return Comparison(module, data, trainers, tmp_path / out, description, **options)

    return build
