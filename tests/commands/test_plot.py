"""The command that draws what a fit or a comparison has left."""

import os
from pathlib import Path

import pytest

from beft_lightning.__main__ import main
from beft_lightning.commands.run_folder import RunFolder
from beft_lightning.compared_run import Run
from beft_lightning.scoring.score_table import BiasScores, TermScore
from tests.commands.conftest import record


def drawn(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in (".png", ".svg")}


def both(*names: str) -> set[str]:
    return {f"{name}{suffix}" for name in names for suffix in (".png", ".svg")}


def test_the_folder_of_a_fit(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss\n0,9,0.7\n0,19,0.6\n")
    BiasScores("projection", "bert", 1, {"value": TermScore([0.1, 0.2], False, 8)}).save(tmp_path)
    assert main(["plot", "--folder", str(tmp_path)]) == 0
    assert drawn(tmp_path) == both("metrics", "scores")


def test_a_fit_without_a_csv_file_has_no_learning_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BiasScores("projection", "bert", 1, {"value": TermScore([0.1, 0.2], False, 8)}).save(tmp_path)
    assert main(["plot", "--folder", str(tmp_path)]) == 0
    assert drawn(tmp_path) == both("scores")
    assert f"No learning curves: {tmp_path} has no metrics.csv." in capsys.readouterr().out


def test_the_folder_of_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        record(seed=seed).write(tmp_path / "runs" / f"value-seed{seed}.json")
    assert main(["plot", "--folder", str(tmp_path)]) == 0
    assert drawn(tmp_path) == both("results", "curves", "parameters")
    assert "No learning curves" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing to draw"),
        ({"metrics.csv": ""}, "not the metrics of a fit"),
        ({"scores.json": "{"}, "scores.json"),
        ({"scores.json": '{"approach": "race"}'}, "not the scores of a race"),
        ({"metrics.csv": "epoch,step\n0,1\n"}, "no metrics over steps"),
    ],
)
def test_a_folder_without_pictures(
    files: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["plot", "--folder", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert drawn(tmp_path) == set()


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "--folder", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_methods_keep_the_order_of_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By seed, and within a seed as they were made, not by the alphabet."""
    folder = RunFolder(tmp_path, "")
    for age, (tune, seed) in enumerate([("lora", 0), ("value", 1), ("value", 0), ("head", 0)]):
        path = folder.path(tune, seed)
        record(tune, seed).write(path)
        os.utime(path, (age, age))
    drawn_runs: list[Run] = []
    monkeypatch.setattr("beft_lightning.commands.plot.draw_report", lambda runs, _: drawn_runs.extend(runs))
    assert main(["plot", "--folder", str(tmp_path)]) == 0
    assert [(run.tune, run.seed) for run in drawn_runs] == [("lora", 0), ("value", 0), ("head", 0), ("value", 1)]
    assert drawn_runs == folder.runs()
