"""An adapter that PEFT itself has made is evaluated and exported, also where PEFT cannot merge it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from beft_lightning import LanguageTaskModule, load_adapter
from beft_lightning.__main__ import main
from beft_lightning.errors import CheckpointError
from beft_lightning.export import export, load_trained
from beft_lightning.export.peft_checkpoint import write_as_checkpoint
from beft_lightning.models import load_model
from tests.export.fits import CAUSAL, HEADED, SST2
from tests.gguf_files import IDS, VOCABULARY, LlamaCpp, log_probabilities, save_gguf
from tests.tiny import logits, save_backbone

peft = pytest.importorskip("peft")


def _adapter(base: str, folder: Path, auto_class: Any = CAUSAL, **options: Any) -> Any:
    """A model of PEFT with random values in its adapter, which is saved to ``folder``."""
    torch.manual_seed(1)
    model = peft.get_peft_model(auto_class.from_pretrained(base), peft.BeftConfig(**options))
    for name, parameter in model.named_parameters():
        if "beft_bias" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_backbone(tmp_path_factory.mktemp("base"), "llama", causal=True, biases=False)


def test_it_is_merged_into_a_model_without_biases(base: str, tmp_path: Path) -> None:
    model = _adapter(base, tmp_path / "adapter", target_modules=["v_proj"], task_type="CAUSAL_LM")
    expected = logits(model)
    assert (expected - logits(CAUSAL.from_pretrained(base))).abs().max() > 0.01
    export(tmp_path / "adapter", tmp_path / "hf", "hf")
    torch.testing.assert_close(logits(CAUSAL.from_pretrained(tmp_path / "hf")), expected, rtol=1e-5, atol=1e-5)
    export(tmp_path / "adapter", tmp_path / "again", "peft")
    again = peft.PeftModel.from_pretrained(CAUSAL.from_pretrained(base), tmp_path / "again")
    assert torch.equal(logits(again), expected)
    with pytest.raises(ValueError, match="no bias"):
        model.merge_and_unload()


def test_llama_cpp_computes_it(tmp_path: Path) -> None:
    file = save_gguf(tmp_path)
    plain: Any = load_model(CAUSAL, str(tmp_path), gguf_file=file.name)
    plain.hf_quantizer.remove_quantization_config(plain)
    plain.save_pretrained(tmp_path / "base")
    options = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = _adapter(str(tmp_path / "base"), tmp_path / "adapter", **options)
    export(tmp_path / "adapter", tmp_path / "out.gguf", "gguf", base_gguf=file)
    found = LlamaCpp(tmp_path / "out.gguf").log_probabilities(IDS, VOCABULARY)
    torch.testing.assert_close(found, log_probabilities(model, IDS), rtol=0, atol=1e-4)


def test_the_commands_evaluate_it(backbone: str, argv: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"target_modules": ["value"], "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"}
    model = _adapter(backbone, tmp_path / "adapter", HEADED, **options)
    assert main(argv("validate", "--adapter", str(tmp_path / "adapter"), "--model.tune", "value")) == 0
    assert main(argv("fit", "--ckpt_path", str(tmp_path / "adapter"))) == 2
    assert "without the state of an optimizer" in capsys.readouterr().err
    write_as_checkpoint(tmp_path / "adapter", tmp_path / "a.ckpt", backbone, None, "float32")
    module = LanguageTaskModule(backbone, SST2, tune="value")
    load_adapter(module, tmp_path / "a.ckpt")
    torch.testing.assert_close(logits(module.model), logits(model), rtol=1e-5, atol=1e-6)
    _, plain, values = load_trained(tmp_path / "adapter")
    assert "classifier.weight" in values
    assert not torch.equal(
        plain.get_parameter("classifier.weight"), values["classifier.weight"]
    )  # the base is as it was


def test_an_adapter_that_cannot_be_used_is_one_error(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    _adapter(base, folder, target_modules=["v_proj"], task_type="CAUSAL_LM")
    config = json.loads((folder / "adapter_config.json").read_text())

    def refused(message: str, **changes: Any) -> None:
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(CheckpointError, match=message):
            export(folder, tmp_path / "out", "hf")
        assert not (tmp_path / "out").exists()

    refused("task_type is None.*set it to one of SEQ_CLS", task_type=None)
    refused("type 'LORA'.*BEFT over a base is needed", peft_type="LORA")
    other = save_backbone(tmp_path / "other", "llama", causal=True, biases=False, num_hidden_layers=1)
    refused("of another model: it holds 'model.layers.1", base_model_name_or_path=other)
    values = folder / "adapter_model.safetensors"
    shutil.copy(values, tmp_path / "whole")
    values.write_bytes(values.read_bytes()[:-50])
    refused("not readable")
    values.unlink()
    refused("not readable")
