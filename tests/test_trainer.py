"""The trainer's commands; tests/commands has what they do."""

from typing import Any

import pytest

from beft_lightning import BiasSelectionCallback, LanguageTaskModule
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from beft_lightning.trainer import BeftTrainer


def trainer(**options: Any) -> BeftTrainer:
    return BeftTrainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)


def test_it_knows_its_selection() -> None:
    selection = BiasSelectionCallback()
    assert trainer(callbacks=[selection]).bias_selection is selection
    assert trainer().bias_selection is None


def test_a_comparison_runs_in_one_process(backbone: str, sst2_dir: str, tmp_path: Any) -> None:
    many = trainer(devices=2, strategy="ddp")
    many.make_trainer = BeftTrainer
    data = Glue(backbone, task="sst2", data_dir=sst2_dir)
    module = LanguageTaskModule(backbone, data.task)
    with pytest.raises(BeftError, match="compare runs in one process: set trainer.devices to 1"):
        many.compare(module, ["value"], str(tmp_path / "out"), datamodule=data)
