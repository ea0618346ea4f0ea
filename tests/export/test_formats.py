"""What is exported computes what was trained, in every format that can express it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
)

from beft_lightning import LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.bias import add_missing_biases
from beft_lightning.errors import BeftError, ExportError
from beft_lightning.export import FORMATS, export, load_trained, merge, peft_adapter
from beft_lightning.files import write_folder_atomically
from beft_lightning.models import load_model
from tests.export.fits import CAUSAL, COPA, HEADED, SST2, fitted, peft_model
from tests.tiny import WIDTH, logits, make_model, save_backbone


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "bloom", "falcon biased"])
def test_a_trained_part_of_a_fused_bias_is_merged_into_the_whole(model_type: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", model_type, causal=True)
    module = fitted(LanguageTaskModule(backbone, COPA, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert torch.equal(logits(CAUSAL.from_pretrained(tmp_path / "out")), logits(module.model))
    if model_type == "gpt2":  # Its layers are no nn.Linear.
        with pytest.raises(ExportError, match="use the format 'hf'"):
            export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
        return
    export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
    adapted = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / "peft")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model_type", "tune", "peft", "hf"),
    [
        ("gpt_neox", "value", True, True),
        ("gpt_neox", "query,value.1", True, True),
        ("bloom", "value", True, True),
        ("falcon biased", "value", True, True),
        ("falcon", "value", True, True),  # all biases are added
        ("gpt2", "value", False, True),  # no linear layers, but Conv1D
        ("phi3", "value", True, False),
        ("mistral", "value", True, False),
        ("gpt_neo", "value", True, True),
        ("qwen3", "value", True, True),
        ("gpt_neox", "value.1.h2,query.0.h0", True, True),
        ("gpt_neo", "value.1.h2", True, True),
    ],
)
def test_parts_of_fused_biases_leave_as_whole_ones(
    model_type: str, tune: str, peft: bool, hf: bool, tmp_path: Path
) -> None:
    backbone = save_backbone(tmp_path / "base", model_type, causal=True)
    module = fitted(LanguageTaskModule(backbone, COPA, tune=tune), tmp_path / "a.ckpt")
    expected = logits(module.model)
    assert (expected - logits(CAUSAL.from_pretrained(backbone))).abs().max() > 1e-3
    for form, possible in (("peft", peft), ("hf", hf)):
        if not possible:
            with pytest.raises(ExportError, match="the format '(peft|hf)'"):
                export(tmp_path / "a.ckpt", tmp_path / form, form)
            continue
        export(tmp_path / "a.ckpt", tmp_path / form, form)
        if form == "hf":
            exported: nn.Module = CAUSAL.from_pretrained(tmp_path / form)
        else:
            exported = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / form)
        torch.testing.assert_close(logits(exported), expected, rtol=1e-5, atol=1e-5)


def test_unused_candidates_need_no_place(tmp_path: Path) -> None:
    """The callback gives every candidate zero biases; only the winner's are exported."""
    backbone = save_backbone(tmp_path / "base", "gptj", causal=True)
    module = LanguageTaskModule(backbone, COPA, tune="value")
    module.configure_model()
    for bias in add_missing_biases(module, ["query", "key"]):
        bias.requires_grad_(False)
    fitted(module, tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "hf", "hf")
    export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
    expected = logits(module.model)
    torch.testing.assert_close(logits(CAUSAL.from_pretrained(tmp_path / "hf")), expected, rtol=1e-5, atol=1e-5)
    adapted = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / "peft")
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-5, atol=1e-5)


def test_a_real_encoder_leaves_both_ways(minilm: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(minilm, SST2, tune="value"), tmp_path / "a.ckpt")
    expected = logits(module.model, 30000)
    export(tmp_path / "a.ckpt", tmp_path / "hf", "hf")
    assert torch.equal(logits(HEADED.from_pretrained(tmp_path / "hf"), 30000), expected)
    export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
    assert (tmp_path / "peft" / "adapter_model.safetensors").stat().st_size < 20_000
    adapted = peft_model(load_model(HEADED, minilm, num_labels=2), tmp_path / "peft")
    torch.testing.assert_close(logits(adapted, 30000), expected, rtol=1e-4, atol=1e-5)


def test_a_real_decoder_leaves_both_ways(short_smollm2: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(short_smollm2, COPA, tune="value"), tmp_path / "a.ckpt")
    expected = logits(module.model, 40000)
    record, base, values = load_trained(tmp_path / "a.ckpt")
    as_peft, as_hf = FORMATS["peft"].prepare, FORMATS["hf"].prepare
    assert as_peft is not None
    assert as_hf is not None
    write_folder_atomically(tmp_path / "peft", as_peft(record, base, values, "float32"))
    adapted: Any = peft_model(base, tmp_path / "peft")
    torch.testing.assert_close(logits(adapted, 40000), expected, rtol=1e-4, atol=1e-4)
    write_folder_atomically(tmp_path / "hf", as_hf(record, adapted.unload(), values, "float32"))
    merged = CAUSAL.from_pretrained(tmp_path / "hf")
    torch.testing.assert_close(logits(merged, 40000), expected, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("a film")["input_ids"]


def test_a_failed_export_leaves_nothing_behind(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")

    def fail(model: Any, folder: Path, **options: Any) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("form", ["peft", "hf"])
def test_a_folder_that_holds_something_is_never_touched(form: str, decoder: str, tmp_path: Path) -> None:
    fitted(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")
    (tmp_path / "out").mkdir()
    export(tmp_path / "a.ckpt", tmp_path / "out", form)  # an empty one is
    content = sorted((tmp_path / "out").iterdir())
    with pytest.raises(BeftError, match="out is not empty: give a new one"):
        export(tmp_path / "a.ckpt", tmp_path / "out", form)
    assert sorted((tmp_path / "out").iterdir()) == content
    with pytest.raises(BeftError, match=r"a.ckpt is a file: give a folder"):
        export(tmp_path / "a.ckpt", tmp_path / "a.ckpt", form)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx"], "invalid choice: 'onnx'"),
        (["--format", "hf", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["--format", "peft", "--dtype", "float16"], "always fp32"),
        (["--format", "hf", "--config", "README.md"], "unrecognized arguments: --config"),
        ([], "required: --format"),
    ],
)
def test_wrong_options_are_one_message(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.ckpt").touch()
    assert main(["export", "--checkpoint", str(tmp_path / "a.ckpt"), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_module_of_ones_own_is_merged_and_adapted_from_python() -> None:
    base = make_model("bert", num_labels=2).eval()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.get_parameter("bert.encoder.layer.0.attention.self.value.bias").add_(1.0)
    name = "bert.encoder.layer.0.attention.self.value"
    values = {f"{name}.bias": tuned.get_parameter(f"{name}.bias").detach()}
    config, tensors = peft_adapter(base, values)
    assert config == {"target_modules": [name], "modules_to_save": None}
    torch.testing.assert_close(tensors[f"base_model.model.{name}.beft_bias"], torch.ones(1, WIDTH))
    merge(base, values)
    assert torch.equal(logits(base), logits(tuned))
