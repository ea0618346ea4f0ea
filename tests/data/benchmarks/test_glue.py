"""GLUE as a DataModule."""

from pathlib import Path

import pytest

from beft_lightning.data import Glue


@pytest.mark.parametrize("regime", ["low", "medium"])
def test_the_real_regimes_nest(regime: str, minilm: str, data_dir: Path) -> None:
    sets = {}
    for size in ("low", regime):
        data = Glue(minilm, task="rte", data_dir=data_dir, train_size=size, seed=1)
        data.setup("fit")
        sets[size] = {i for batch in data.train_dataloader() for i in batch["id"].tolist()}
    assert len(sets[regime]) == {"low": 300, "medium": 900}[regime]
    assert sets["low"] <= sets[regime]


def test_every_task_of_the_benchmark_is_there() -> None:
    assert sorted(Glue.tasks) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
