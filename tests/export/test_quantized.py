"""Biases leave beside quantized weights, which keep every bit."""

from pathlib import Path

import pytest
import torch

from beft_lightning import LanguageTaskModule, load
from beft_lightning.errors import ExportError
from beft_lightning.export import export
from tests.export.fits import CAUSAL, COPA, HEADED, SST2, fitted
from tests.tiny import logits, save_backbone

pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_the_folder_computes_what_was_trained_to_the_bit(model_type: str, dtype: str, tmp_path: Path) -> None:
    causal = model_type == "llama"
    biased = {} if model_type == "bert" else {"biases": False}
    base = save_backbone(tmp_path / "base", model_type, causal=causal, **biased)
    task, auto_class = (COPA, CAUSAL) if causal else (SST2, HEADED)
    module = fitted(LanguageTaskModule(base, task, tune="value", dtype=dtype), tmp_path / "a.ckpt")
    assert module.model is not None
    expected = logits(module.model)
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    model = auto_class.from_pretrained(tmp_path / "out")
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):  # That kernel rounds otherwise, and takes no narrow layers.
            layer.support_avx512bf16_for_cpu = False
    assert torch.equal(logits(model), expected)
    weights = dict(module.model.named_parameters())
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            assert torch.equal(parameter, weights[name]), name
    assert any(not parameter.is_floating_point() for parameter in model.parameters())
    assert torch.equal(logits(load(tmp_path / "out", device="cpu").model), expected)
    with pytest.raises(ExportError, match=f"the weights were {dtype} in the fit.*leave out the dtype"):
        export(tmp_path / "a.ckpt", tmp_path / "plain", "hf", dtype="float32")
