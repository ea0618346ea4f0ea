"""The GGUF file is the base's to the bit with the trained biases in it, and llama.cpp computes what was trained."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beft_lightning import LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.bias.structure import add_biases
from beft_lightning.errors import BeftError, ExportError
from beft_lightning.export import export, merge
from beft_lightning.export.gguf import gguf_biases
from beft_lightning.export.gguf_file import GGUFFile
from beft_lightning.models import load_model, load_tokenizer
from tests.export.fits import CAUSAL, COPA, SST2, fitted
from tests.gguf_files import (
    IDS,
    VOCABULARY,
    LlamaCpp,
    disk_of,
    log_probabilities,
    make_gguf_model,
    save_gguf,
    write_gguf,
)
from tests.tiny import LAYERS, WIDTH, save_backbone

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("gguf"))


def _fit(base: Path, path: Path, tune: Any = "value") -> LanguageTaskModule:
    return fitted(LanguageTaskModule(str(base.parent), COPA, gguf_file=base.name, tune=tune), path)


@pytest.mark.parametrize(
    "tune", ["value", ["query", "key"], ["attention_output", "mlp_in", "mlp_gate", "mlp_out"], "value.1"]
)
def test_llama_cpp_computes_what_was_trained(tune: Any, base: Path, tmp_path: Path) -> None:
    module = _fit(base, tmp_path / "a.ckpt", tune)
    expected = log_probabilities(module.model, IDS)
    assert (
        expected - log_probabilities(load_model(CAUSAL, str(base.parent), gguf_file=base.name), IDS)
    ).abs().max() > 0.01
    export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf")
    found = LlamaCpp(tmp_path / "out.gguf").log_probabilities(IDS, VOCABULARY)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_of_qwen3_llama_cpp_adds_the_biases_of_the_inputs_only(tmp_path: Path) -> None:
    file, model = GGUFFile(save_gguf(tmp_path, model_type="qwen3")), make_gguf_model("qwen3")
    paths = [f"model.layers.{i}.self_attn.{part}_proj.bias" for i in range(LAYERS) for part in "qkv"]
    sizes = [len(model.get_parameter(path.replace("bias", "weight"))) for path in paths]
    trained = {path: torch.linspace(-0.5, 0.5, size) for path, size in zip(paths, sizes, strict=True)}
    file.write(tmp_path / "out.gguf", gguf_biases(file, model, trained))
    merge(model, trained)
    found = LlamaCpp(tmp_path / "out.gguf").log_probabilities(IDS, VOCABULARY)
    torch.testing.assert_close(found, log_probabilities(model, IDS), rtol=0, atol=1e-4)
    message = r"no place for 'model.layers.0.self_attn.o_proj.bias'.*'qwen3': it adds those of attn_k, attn_q, attn_v"
    with pytest.raises(ExportError, match=message):
        gguf_biases(file, model, {"model.layers.0.self_attn.o_proj.bias": torch.ones(WIDTH)})


@pytest.mark.parametrize("model_type", ["gemma", "gpt2", "mistral", "phi", "qwen2"])
@torch.no_grad()
def test_llama_cpp_computes_a_value_bias_of(model_type: str, tmp_path: Path) -> None:
    """Added to Gemma and Mistral, in place of that of the file for the others."""
    model = make_gguf_model(model_type)
    file = GGUFFile(write_gguf(model, tmp_path / "base.gguf"))
    layer = "transformer.h.{}.attn.c_attn" if model_type == "gpt2" else "model.layers.{}.self_attn.v_proj"
    size = model.get_parameter(f"{layer.format(0)}.weight").shape[1 if model_type == "gpt2" else 0]
    trained = {f"{layer.format(i)}.bias": torch.linspace(-1, 1, size) for i in range(LAYERS)}
    file.write(tmp_path / "out.gguf", gguf_biases(file, model, trained))
    before = log_probabilities(model, IDS)
    add_biases(model, trained)
    for name, value in trained.items():
        model.get_parameter(name).copy_(value)
    expected = log_probabilities(model, IDS)
    assert (expected - before).abs().max() > 0.01
    found = LlamaCpp(tmp_path / "out.gguf").log_probabilities(IDS, VOCABULARY)
    # llama.cpp looks GELU up in a table in half precision.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_everything_of_the_base_stays_to_the_bit(base: Path, tmp_path: Path) -> None:
    module = _fit(base, tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf")
    before, after = gguf.GGUFReader(base), gguf.GGUFReader(tmp_path / "out.gguf")
    for name, field in before.fields.items():
        if name != "GGUF.tensor_count":
            assert after.fields[name].contents() == field.contents()
            assert after.fields[name].types == field.types
    tensors = {tensor.name: tensor for tensor in after.tensors}
    for tensor in before.tensors:
        kept = tensors.pop(tensor.name)
        assert kept.tensor_type == tensor.tensor_type
        assert np.array_equal(kept.data, tensor.data)
    assert sorted(tensors) == [f"blk.{layer}.attn_v.bias" for layer in range(LAYERS)]
    assert module.model is not None
    trained = module.model.get_parameter("model.layers.0.self_attn.v_proj.bias").detach()
    assert torch.equal(torch.from_numpy(tensors["blk.0.attn_v.bias"].data.copy()), trained)


def test_a_base_of_transformers_is_given_as_a_file(base: Path, tmp_path: Path) -> None:
    """The weights of the file may be coarser than those that were trained over; those of another model are refused."""
    folder = tmp_path / "folder"
    model: Any = load_model(CAUSAL, str(base.parent), gguf_file=base.name)
    model.hf_quantizer.remove_quantization_config(model)
    model.save_pretrained(folder)
    load_tokenizer(str(base.parent), base.name).save_pretrained(folder)
    module = fitted(LanguageTaskModule(str(folder), COPA, tune="value"), tmp_path / "a.ckpt")
    with pytest.raises(ExportError, match=r"is no GGUF file: .*--base_gguf.*convert_hf_to_gguf.py"):
        export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf")
    export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf", base_gguf=base)
    found = LlamaCpp(tmp_path / "out.gguf").log_probabilities(IDS, VOCABULARY)
    torch.testing.assert_close(found, log_probabilities(module.model, IDS), rtol=0, atol=1e-4)
    other = save_gguf(tmp_path, intermediate_size=40)
    with pytest.raises(ExportError, match=r"base.gguf: the weights of 'model.layers.0.*are not those of the fit's"):
        export(tmp_path / "a.ckpt", tmp_path / "b.gguf", "gguf", base_gguf=other)
    shallow = save_gguf(tmp_path, "shallow.gguf", num_hidden_layers=1)
    with pytest.raises(ExportError, match=r"shallow.gguf: a model of 1 layers, and the fit's base has 3"):
        export(tmp_path / "a.ckpt", tmp_path / "b.gguf", "gguf", base_gguf=shallow)
    assert not (tmp_path / "b.gguf").exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"a text that is no GGUF file at all", None])
def test_a_damaged_file_is_one_error(content: bytes | None, base: Path, tmp_path: Path) -> None:
    _fit(base, tmp_path / "a.ckpt")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(base.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ExportError, match=r"damaged.gguf: not a readable GGUF file, or damaged"):
        export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf", base_gguf=damaged)
    shutil.copy(damaged, tmp_path / "base.gguf")
    with pytest.raises(ExportError, match=r"base.gguf: not a readable GGUF file"):
        export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf", backbone=str(tmp_path))
    assert not (tmp_path / "out.gguf").exists()


def test_what_llama_cpp_has_no_place_for_is_refused(base: Path, backbone: str, tmp_path: Path) -> None:
    fitted(LanguageTaskModule(backbone, SST2, tune="value"), tmp_path / "a.ckpt")
    with pytest.raises(
        ExportError, match=r"for language models.*AutoModelForSequenceClassification.*use 'hf' or 'peft'"
    ):
        export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf", base_gguf=base)
    opt = save_backbone(tmp_path / "opt", "opt", causal=True)
    fitted(LanguageTaskModule(opt, COPA, tune="value"), tmp_path / "opt.ckpt")
    with pytest.raises(ExportError, match=r"no place in a file|another model"):
        export(tmp_path / "opt.ckpt", tmp_path / "out.gguf", "gguf", base_gguf=base)
    _fit(base, tmp_path / "full.ckpt", "full")
    with pytest.raises(ExportError, match=r"holds biases beside the base's weights, and 'lm_head.weight'"):
        export(tmp_path / "full.ckpt", tmp_path / "out.gguf", "gguf")


def test_the_file_is_new_and_complete(base: Path, tmp_path: Path) -> None:
    _fit(base, tmp_path / "a.ckpt")
    (tmp_path / "taken.gguf").write_text("mine")
    with pytest.raises(BeftError, match="taken.gguf exists: give a new name"):
        export(tmp_path / "a.ckpt", tmp_path / "taken.gguf", "gguf")
    with pytest.raises(BeftError, match="ends in .gguf"):
        export(tmp_path / "a.ckpt", tmp_path / "folder", "gguf")
    with pytest.raises(ExportError, match="base_gguf is for the format 'gguf'"):
        export(tmp_path / "a.ckpt", tmp_path / "folder", "hf", base_gguf=base)
    with pytest.raises(ExportError, match="keeps the precision"):
        export(tmp_path / "a.ckpt", tmp_path / "out.gguf", "gguf", dtype="float16")

    options = ["--checkpoint", str(tmp_path / "a.ckpt"), "--out", str(tmp_path / "out.gguf"), "--format", "gguf"]
    with disk_of(20_000):
        assert main(["export", *options]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "taken.gguf"]
    assert (tmp_path / "taken.gguf").read_text() == "mine"
