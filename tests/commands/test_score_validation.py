"""What might tell beforehand which term to train."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from beft_lightning import LanguageTaskModule
from beft_lightning.commands.score_validation import measure_terms, measures_table, rank_correlations
from beft_lightning.data import Glue
from tests.tiny import save_backbone

MakeTrainer = Callable[..., Trainer]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_terms_that_start_at_zero_are_measured_without_their_size(
    dtype: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    backbone = save_backbone(tmp_path / "llama", "llama", causal=True, biases=False)
    data = Glue(backbone, task="sst2", prompt=True, data_dir=sst2_dir, batch_size=8)
    module = LanguageTaskModule(backbone, data.task, dtype=dtype)
    module.configure_model()
    precision = "bf16-mixed" if dtype == "bfloat16" else "32-true"
    trainers = lambda callbacks: make_trainer(callbacks=callbacks, precision=precision)  # noqa: E731
    measures = measure_terms(module, data, trainers, ["query", "key", "mlp_in"], batches=2)
    assert set(measures) == {"magnitude", "fisher", "gradient", "adam_gain", "gradient_signal"}
    assert all(value > 0 for values in measures.values() for value in values.values())


def test_rank_correlations_follow_the_order_alone() -> None:
    accuracies = {"value": 0.9, "query": 0.7, "key": 0.5}
    measures = {
        "same": {"value": 1e-3, "query": 1e-6, "key": 1e-9},
        "reverse": {"value": 1.0, "query": 2.0, "key": 30.0},
        "half": {"value": 2.0, "query": 3.0, "key": 1.0},
    }
    expected = {"same": 1.0, "reverse": -1.0, "half": 0.5}
    assert rank_correlations(measures, accuracies) == pytest.approx(expected, abs=1e-5)
    rows = measures_table(measures, accuracies, "accuracy").splitlines()
    assert rows[0].startswith("| measure | value | query | key |")
    assert rows[-1].endswith("| +0.50 |")


def test_terms_without_an_order_are_tied() -> None:
    """Neither equal results nor an equal measure rank anything."""
    measures = {"some": {"value": 1.0, "query": 2.0, "key": 3.0}, "flat": {"value": 1.0, "query": 1.0, "key": 1.0}}
    ordered, equal = {"value": 0.5, "query": 0.6, "key": 0.7}, dict.fromkeys(("value", "query", "key"), 0.5)
    assert math.isnan(rank_correlations(measures, ordered)["flat"])
    assert rank_correlations(measures, ordered)["some"] == pytest.approx(1.0, abs=1e-5)
    assert all(map(math.isnan, rank_correlations(measures, equal).values()))
    rows = measures_table(measures, equal, "accuracy").splitlines()
    assert [row.split("|")[-2].strip() for row in rows[-2:]] == ["tied", "tied"]
