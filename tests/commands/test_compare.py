"""The command ``compare``."""

import csv
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.__main__ import main
from tests.tiny import LAYERS, WIDTH


def test_a_comparison_from_the_command_line(
    argv: Any, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "comparison"
    options = [
        "--data.dev_size",
        "8",
        "--tune",
        "query,value",
        "random_mask",
        "--seeds",
        "0",
        "1",
        "--out",
        str(folder),
    ]
    mask = ["--options", '{"random_mask": {"budget": 100}}']
    assert main(argv("compare", *options, *mask, "--trainer.enable_progress_bar", "true")) == 0
    assert "Testing" not in capsys.readouterr().out  # no bars where there is no terminal
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["tune"], row["seed"]) for row in rows] == [
        (t, s) for s in "01" for t in ("query,value", "random_mask")
    ]
    assert all(row["best_accuracy"] for row in rows)
    biases, masked = (int(row["trained_parameters"]) for row in rows[:2])
    assert masked == biases - 2 * WIDTH * LAYERS + 100  # each method takes its own options
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "results.csv",
        "results.md",
        *(f"{name}{suffix}" for name in ("results", "curves", "parameters") for suffix in (".png", ".svg")),
        "runs",
    }
    assert not out.exists()

    # Runs of other settings need another folder.
    before = (folder / "results.csv").read_text()
    assert main(argv("compare", *options, *mask, "--data.batch_size", "4")) == 2
    assert "holds results of another configuration" in capsys.readouterr().err
    assert main(argv("compare", *options)) == 2
    assert 'made with options {"budget": 100}, and {} is asked for' in capsys.readouterr().err
    assert (folder / "results.csv").read_text() == before


def test_options_of_a_method_have_names(argv: Any, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "out"), "--tune", "random_mask", "--options", '{"random_mask": 100}']
    assert main(argv("compare", *options)) == 2
    assert not (tmp_path / "out").exists()


def test_callbacks_of_ones_own_are_refused(argv: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tune", "head", "--out", str(tmp_path / "out"), "--trainer.callbacks", "lightning.pytorch.Callback"]
    assert main(argv("compare", *options)) == 2
    assert "leave out trainer.callbacks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
