"""The examples run, and train what they say."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning.pytorch import seed_everything

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_two_tower_model_is_scored_by_tower_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = example("clip_digits")
    module, selection = clip.main(epochs=4)
    terms = selection.scores.terms
    towers = ("vision_model", "text_model")
    assert set(terms) == {f"{tower}.{term}" for tower in towers for term in ("query", "key", "value")}
    assert {term for term, entry in terms.items() if entry.inert} == {f"{tower}.key" for tower in towers}
    seed_everything(1, verbose=False)
    fresh = dict(clip.ContrastiveDigits().named_parameters())
    moved = [name for name, parameter in module.named_parameters() if not torch.equal(parameter, fresh[name])]
    ((tower, term),) = (name.split(".") for name in selection.selected)
    biases = [f"net.{tower}.encoder.layers.{i}.self_attn.{term[0]}_proj.bias" for i in (0, 1)]
    assert moved == selection.trained
    assert set(moved) == {*biases, "net.logit_scale", "net.visual_projection.weight", "net.text_projection.weight"}
    assert float(capsys.readouterr().out.split()[-1]) > 0.15  # of ten digits


def test_the_examples_on_the_page_of_biases_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = (EXAMPLES.parent / "docs" / "biases.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks:
        exec(block, {})
    printed = capsys.readouterr().out
    assert "'query.query', 'query.key', 'query.value'" in printed
    assert "['document.encoder.layer.0.attention.self.value.bias', 'document.encoder.layer.1." in printed
    assert "['document.encoder.layer.0.attention.self.value.bias', 'document.encoder.layer.1." in printed


def test_a_search_with_optuna_finds_a_term_and_a_rate(backbone: str, sst2_dir: str) -> None:
    pytest.importorskip("optuna")
    study = example("optuna_sweep").sweep(backbone, sst2_dir, trials=2, train_size=48)
    assert [set(trial.params) for trial in study.trials] == [{"tune", "learning_rate"}] * 2
    assert study.best_value == max(trial.value for trial in study.trials)
