"""The command ``score``."""

import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.__main__ import main
from tests.tiny import save_backbone


def test_score_writes_to_the_folder_asked_for_and_nothing_else(
    argv: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.iterdir())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(argv("score", "--out", str(tmp_path / "scores"), "--selection.approach", "fisher")) == 0
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {
        "scores.json",
        "scores.csv",
        "scores.png",
        "scores.svg",
    }
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["approach"] == "fisher"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "here", tmp_path / "scores", tmp_path / "tiny.yaml"} - before
    assert not list((tmp_path / "here").iterdir())
    assert "fit finished" not in capsys.readouterr().out


def test_a_module_that_is_not_tuned_by_scores_can_be_scored(argv: Any, tmp_path: Path) -> None:
    assert main(argv("score", "--out", str(tmp_path / "scores"), "--model.tune", "value")) == 0
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["ranking"][0] == "value"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--selection.approach", "fixed"], "nothing to do with approach 'fixed'"),
        (["--selection.scores", "scores.json"], "leave out --selection.scores"),
        (["--out", "tiny.yaml"], "tiny.yaml is a file: give a folder"),
    ],
)
def test_what_cannot_be_scored_is_one_message(
    options: list[str],
    message: str,
    argv: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv("score", "--out", "scores", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()


def test_biases_that_start_at_zero_are_one_message(
    argv: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = save_backbone(tmp_path / "llama", "llama", causal=True, biases=False)
    options = ["--out", str(tmp_path / "scores"), "--model.backbone", backbone, "--data.prompt", "true"]
    assert main(argv("score", *options, "--selection.approach", "projection")) == 2
    message = "cannot be ranked by projection. Set --selection.approach to one of magnitude, fisher, "
    assert message in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()
