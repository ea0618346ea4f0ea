"""The command ``compare``."""

import csv
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.__main__ import main


def test_a_comparison_from_the_command_line(argv: Any, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    options = ["--data.dev_size", "8", "--tune", "value", "query,value", "head", "--seeds", "0", "1", "--out"]
    assert main(argv("compare", *options, str(folder))) == 0
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    tunes = ["value", "query,value", "head"]
    assert [(row["tune"], row["seed"]) for row in rows] == [(tune, seed) for seed in "01" for tune in tunes]
    assert all(row["best_accuracy"] for row in rows)
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "results.csv",
        "results.md",
        *(f"{name}{suffix}" for name in ("results", "curves", "parameters") for suffix in (".png", ".svg")),
        "runs",
    }
    assert not out.exists()


def test_each_method_takes_its_own_options(argv: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--out", str(tmp_path / "out"), "--tune", "head", "random_mask"]
    assert main(argv("compare", *options, "--options", '{"random_mask": {"budget": 100}}')) == 0
    head, mask = csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines())
    assert int(mask["trained_parameters"]) == int(head["trained_parameters"]) + 100
    assert main(argv("compare", *options, "--options", '{"random_mask": 100}')) == 2
    assert main(argv("compare", *options)) == 2
    assert 'made with options {"budget": 100}, and {} is asked for' in capsys.readouterr().err


def test_a_comparison_with_other_settings_needs_another_folder(
    argv: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tune", "head", "--out", str(tmp_path / "comparison")]
    assert main(argv("compare", *options)) == 0
    before = (tmp_path / "comparison" / "results.csv").read_text()
    assert main(argv("compare", *options, "--data.batch_size", "4")) == 2
    assert "holds results of another configuration" in capsys.readouterr().err
    assert (tmp_path / "comparison" / "results.csv").read_text() == before


def test_callbacks_of_ones_own_are_refused(argv: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tune", "head", "--out", str(tmp_path / "out"), "--trainer.callbacks", "lightning.pytorch.Callback"]
    assert main(argv("compare", *options)) == 2
    assert "leave out trainer.callbacks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
