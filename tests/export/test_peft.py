"""The adapter computes in PEFT what was trained here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMultipleChoice,
)

from beft_lightning import LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.data import SUPER_GLUE_TASKS
from beft_lightning.export import export
from tests.export.fits import CAUSAL, COPA, HEADED, SST2, fitted, peft_model
from tests.tiny import LAYERS, VOCABULARY, WIDTH, logits, save_backbone


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize("tune", ["value", "query,mlp_out", "value.1"])
def test_peft_computes_what_was_trained_of_an_encoder(model_type: str, tune: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", model_type)
    module = fitted(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    base = HEADED.from_pretrained(backbone, num_labels=2)
    untouched = logits(base)
    adapted = peft_model(base, tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)
    assert (logits(adapted) - untouched).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("model_type", "tune", "options"),
    [
        ("opt", "value", {}),
        ("opt", "attention_output.2", {}),
        ("llama", "value", {"biases": False}),
        ("llama", "query,key,mlp_out", {"biases": False}),
        ("gptj", "value", {}),
    ],
)
def test_peft_computes_what_was_trained_of_a_decoder(
    model_type: str, tune: str, options: dict[str, Any], tmp_path: Path
) -> None:
    backbone = save_backbone(tmp_path / "base", model_type, causal=True, **options)
    module = fitted(LanguageTaskModule(backbone, COPA, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    base = CAUSAL.from_pretrained(backbone)
    untouched = logits(base)
    adapted = peft_model(base, tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)
    assert (logits(adapted) - untouched).abs().max() > 1e-2
    # What PEFT loads by itself is the same.
    again = pytest.importorskip("peft").AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(again), logits(adapted))


@pytest.mark.parametrize("kind", ["low_rank_bias", "scalar_bias"])
def test_peft_computes_a_reparametrised_bias(kind: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", "llama", causal=True, biases=False)
    module = fitted(LanguageTaskModule(backbone, COPA, tune=kind), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    adapted = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)


def test_a_multiple_choice_head_goes_into_the_adapter(backbone: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(backbone, SUPER_GLUE_TASKS["copa"], tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    adapted = peft_model(AutoModelForMultipleChoice.from_pretrained(backbone), tmp_path / "out")
    ids = torch.randint(4, len(VOCABULARY), (3, 2, 7), generator=torch.Generator().manual_seed(5))
    assert module.model is not None
    with torch.no_grad():
        expected = module.model(input_ids=ids).logits
        torch.testing.assert_close(adapted.eval()(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-6)


def test_the_adapter_file_is_the_one_of_peft(decoder: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    fitted(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors"),
        *("beft_task.json", "README.md", "tokenizer.json", "tokenizer_config.json"),
    }
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config == {
        "peft_type": "BEFT",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": decoder,
        "inference_mode": True,
        "peft_version": "0.20.0",
        "target_modules": [f"model.decoder.layers.{i}.self_attn.v_proj" for i in range(LAYERS)],
        "modules_to_save": None,
    }
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert set(tensors) == {f"base_model.model.{path}.beft_bias" for path in config["target_modules"]}
    assert all(tensor.shape == (1, WIDTH) and tensor.dtype == torch.float32 for tensor in tensors.values())


@pytest.mark.parametrize("tune", ["attention_norm", "all", "head"])
def test_what_peft_cannot_express_is_an_error_that_names_the_other_format(
    tune: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = save_backbone(tmp_path / "base", "roberta")
    fitted(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    command = ["export", "--checkpoint", str(tmp_path / "a.ckpt"), "--format", "peft", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "use the format 'hf'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
