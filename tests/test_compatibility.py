"""Files that users saved with the first version (0.1.0 before the new layout) still load, with equal numbers.

The files lie in ``tests/files/first_version``; backbones and data are built anew from their seeds.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from beft_lightning.__main__ import main
from beft_lightning.scoring.score_table import BiasScores
from tests.tiny import save_backbone, write_sst2

FILES = Path(__file__).parent / "files" / "first_version"
#: Run -> the type of its backbone, and whether that is a language model.
RUNS = {
    "selected": ("bert", False),
    "fused": ("gpt2", False),
    "added": ("llama", True),
    "random_mask": ("bert", False),
    "low_rank": ("bert", False),
    "lora": ("bert", False),
    "prefix": ("opt", True),
}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, in a working directory with its backbone and data where its configuration says."""
    model_type, causal = RUNS[request.param]
    save_backbone(
        tmp_path / model_type, model_type, causal=causal, **({"biases": False} if model_type == "llama" else {})
    )
    write_sst2(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["beft_lightning"])
    return FILES / str(request.param)


def test_a_checkpoint_predicts_what_it_did(run: Path, tmp_path: Path) -> None:
    options = ["--ckpt_path", str(run / "last.ckpt")]
    assert main(["predict", "--config", str(run / "config.yaml"), *options]) == 0
    (predictions,) = tmp_path.rglob("predictions.tsv")
    rows, expected = (path.read_text().splitlines() for path in (predictions, run / "predictions.tsv"))
    # The first version wrote the numbers of prompted options, which have names now.
    names = {"0": "negative", "1": "positive"}
    before = [line.rpartition("\t") for line in expected]
    assert rows == [f"{place}\t{names.get(label, label)}" for place, _, label in before]


def test_a_configuration_repeats_its_fit(run: Path, tmp_path: Path) -> None:
    """The same biases are trained to the same values."""
    assert main(["fit", "--config", str(run / "config.yaml")]) == 0
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    before, now = (torch.load(path, weights_only=True) for path in (run / "last.ckpt", checkpoint))
    assert now["beft_trained"] == before["beft_trained"]
    for name in before["beft_trained"]:
        torch.testing.assert_close(now["state_dict"][name], before["state_dict"][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("run", ["selected", "fused", "added"], indirect=True)
def test_a_fit_resumes(run: Path, tmp_path: Path) -> None:
    options = ["--trainer.max_epochs", "2", "--ckpt_path", str(run / "last.ckpt")]
    assert main(["fit", "--config", str(run / "config.yaml"), *options]) == 0


@pytest.mark.parametrize("run", ["selected", "fused", "added", "random_mask", "low_rank"], indirect=True)
def test_a_checkpoint_is_exported(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    form = "peft" if run.name == "added" else "hf"
    assert main(["export", "--checkpoint", str(run / "last.ckpt"), "--format", form, "--out", str(out)]) == 0
    assert any(out.iterdir())


def test_a_score_file_loads() -> None:
    scores = BiasScores.load(FILES / "selected" / "scores.json")
    assert scores.ranking == ["value", "query", "key"]
    assert scores.selected == ["value"]
    assert scores.terms["key"].inert
    assert scores.margins["value"].over == "query"
    assert scores.margins["value"].spread is not None


@pytest.mark.parametrize("run", ["selected"], indirect=True)
def test_a_comparison_goes_on_from_its_finished_runs(run: Path, tmp_path: Path) -> None:
    shutil.copytree(FILES / "comparison", tmp_path / "comparison")
    config = yaml.safe_load((run / "config.yaml").read_text())
    for section in ("ckpt_path", "weights_only"):
        config.pop(section)
    config["trainer"] |= {"callbacks": None}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--tune", "value", "lora", "--seeds", "0", "--options", '{"lora": {"r": 2}}', "--out", "comparison"]
    assert main(["compare", "--config", "config.yaml", *options]) == 0
    for path in (FILES / "comparison" / "runs").glob("*.json"):
        assert json.loads((tmp_path / "comparison" / "runs" / path.name).read_text()) == json.loads(path.read_text())
