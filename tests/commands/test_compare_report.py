"""The results of a comparison for people."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import rich
import torch

from beft_lightning.commands.compare_report import results_table, to_csv, to_markdown, write_report
from tests.commands.conftest import record


def test_the_report_holds_every_run(make: Any, tmp_path: Path) -> None:
    runs = make().run(["value", "head"], [0, 1])
    write_report(runs, tmp_path / "report", notes="A note.")
    rows = list(csv.DictReader((tmp_path / "report" / "results.csv").read_text().splitlines()))
    assert [(row["tune"], int(row["seed"])) for row in rows] == [(run.tune, run.seed) for run in runs]
    assert [float(row["last_accuracy"]) for row in rows] == [run.last["accuracy"] for run in runs]
    assert to_csv(runs).splitlines()[0].startswith("tune,seed,learning_rate,best_epoch,last_accuracy")
    text = (tmp_path / "report" / "results.md").read_text()
    values = torch.tensor([run.last["accuracy"] for run in runs if run.tune == "value"])
    assert f"| value | {values.mean():.3f} ± {values.std():.3f} |" in text
    assert text.endswith("A note.")
    pictures = {path.name for path in (tmp_path / "report").iterdir() if path.suffix in (".png", ".svg")}
    assert pictures == {
        f"{name}{suffix}" for name in ("results", "curves", "parameters") for suffix in (".png", ".svg")
    }


def test_the_table_has_a_row_for_each_method_in_the_order_of_its_runs() -> None:
    value = record(best={"accuracy": 0.75, "loss": 0.1}, best_epoch=2, peak_memory=3 * 2**20)
    untrained = record("zero_shot", learning_rate=0.0, trained_parameters=0, history=[], seconds=0.0)
    runs = [value, untrained, record(seed=1), record("lora", seed=1, options={"r": 2}, trained_parameters=1234)]
    assert to_markdown(runs) == (
        "| tune | accuracy, last epoch | accuracy, best dev epoch | trained | share | learning rate | seconds "
        "| peak memory |\n"
        "|---|---|---|---|---|---|---|---|\n"
        "| value | 0.562 ± 0.088 | 0.750 | 10 | 10.0000% | 0.01 | 2 | 3 MiB |\n"
        "| zero_shot | 0.500 | - | 0 | 0.0000% | - | 0 | - |\n"
        "| lora | 0.625 | - | 1,234 | 1234.0000% | 0.01 | 2 | - |\n"
        "\nMean and standard deviation over seeds 0, 1; seconds are a run's mean.\n"
        '\nOptions: lora {"r": 2}.\n'
    )
    assert to_csv(runs).splitlines()[:3] == [
        "tune,seed,learning_rate,best_epoch,last_accuracy,last_loss,best_accuracy,best_loss,trained_parameters,"
        "total_parameters,seconds,peak_memory",
        "value,0,0.01,2,0.5,0.25,0.75,0.1,10,100,1.5,3145728",
        "zero_shot,0,0.0,,0.5,0.25,,,0,100,0.0,",
    ]


def test_a_diverged_run_is_marked_and_not_averaged(capsys: pytest.CaptureFixture[str]) -> None:
    lost = record(seed=1, last={"accuracy": 0.125, "loss": math.nan}, best={"accuracy": 0.125}, diverged=True)
    runs = [record(), lost, record(seed=2), record("head", last={"accuracy": 0.125, "loss": math.inf}, diverged=True)]
    text = to_markdown(runs)
    assert "| value | 0.625 ± 0.177 (1 of 3 diverged) | - |" in text
    assert "| head | diverged | - |" in text
    assert "\nDiverged, and left out of the means: value with seed 1, head with seed 0.\n" in text
    assert "\nvalue,1,0.01,,,,,,10," in to_csv(runs)
    rich.print(results_table(runs))
    assert "left out of the means" in capsys.readouterr().out.replace("\n", " ")
