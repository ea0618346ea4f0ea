"""What was trained over a GGUF file is found without a model, and only over the file of the fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from beft_lightning import LanguageTaskModule
from beft_lightning.errors import CheckpointError, ExportError
from beft_lightning.export import export, gguf
from beft_lightning.export.gguf_file import GGUFFile
from beft_lightning.fingerprint import fingerprint
from beft_lightning.models import load_model
from tests.export.fits import CAUSAL, COPA, fitted
from tests.gguf_files import save_gguf
from tests.tiny import WIDTH

pytest.importorskip("gguf")


def _no_model(*_: Any) -> None:
    raise AssertionError("the model was loaded")


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma2"])
def test_a_file_identifies_the_model_that_transformers_makes_of_it(model_type: str, tmp_path: Path) -> None:
    """In each precision; only the values of a trained bias are none of the base."""
    base = save_gguf(tmp_path, model_type=model_type)
    file = GGUFFile(base)
    value = torch.ones_like(
        load_model(CAUSAL, str(tmp_path), gguf_file=base.name).model.layers[0].self_attn.v_proj.weight[:, 0]
    )
    trained = "model.model.layers.0.self_attn.v_proj.bias"
    for dtype in ("float32", "bfloat16"):
        model = load_model(CAUSAL, str(tmp_path), gguf_file=base.name, dtype=dtype)
        frozen = {f"model.{name}": found for name, found in fingerprint(model).items()}
        frozen.pop(trained, None)
        checkpoint = {"beft_trained": [trained], "beft_fingerprint": frozen, "state_dict": {trained: value}}

        def held(**changes: Any) -> Any:
            return gguf.values_over_file(file, gguf._names(file), {"dtype": dtype}, {**checkpoint, **changes})  # noqa: B023

        assert list(held()) == [trained.removeprefix("model.")]
        for name in frozen:
            other = [*frozen[name][:5], "0" * 32]
            assert held(beft_fingerprint={**frozen, name: other}) is None
        assert held(state_dict={trained: value[1:]}) is None
        assert held(state_dict={trained: value / 0}) is None
        assert held(beft_fingerprint={name: frozen[name] for name in list(frozen)[1:]}) is None


def test_an_export_without_a_model_is_that_over_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_gguf(tmp_path)
    fitted(LanguageTaskModule(str(tmp_path), COPA, gguf_file=base.name, tune=["query", "value"]), tmp_path / "a.ckpt")
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "load_trained", _no_model)
        export(tmp_path / "a.ckpt", tmp_path / "fast.gguf", "gguf")
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "values_over_file", lambda *_: None)
        export(tmp_path / "a.ckpt", tmp_path / "slow.gguf", "gguf")
    assert (tmp_path / "fast.gguf").read_bytes() == (tmp_path / "slow.gguf").read_bytes()
    GGUFFile(base).write(tmp_path / "other.gguf", {"output_norm.weight": torch.ones(WIDTH)})
    (tmp_path / "other.gguf").replace(base)
    with pytest.raises(CheckpointError, match="another model of the same shape"):
        export(tmp_path / "a.ckpt", tmp_path / "b.gguf", "gguf")


def test_what_the_record_says_is_refused_before_the_base_is_loaded(
    base_record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beft_lightning.export.loading.load_base", _no_model)
    base_record(dtype="nf4", gguf_file=None)
    base = save_gguf(tmp_path)
    with pytest.raises(ExportError, match=r"quantized to nf4 as they were loaded.*train over the GGUF file"):
        export(tmp_path / "a.ckpt", tmp_path / "b.gguf", "gguf", base_gguf=base)
    base_record(gguf_file=None)
    with pytest.raises(ExportError, match=r"is no GGUF file: give the same base as one"):
        export(tmp_path / "a.ckpt", tmp_path / "b.gguf", "gguf")
    with pytest.raises(ExportError, match=r"--base_gguf models/none.gguf: no such file"):
        export(tmp_path / "a.ckpt", tmp_path / "b.gguf", "gguf", base_gguf="models/none.gguf")


@pytest.fixture
def base_record(tmp_path: Path) -> Any:
    """Change the record of a checkpoint at ``a.ckpt``."""
    base = save_gguf(tmp_path)
    fitted(LanguageTaskModule(str(tmp_path), COPA, gguf_file=base.name, tune="value"), tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content.pop("beft_checksum", None)

    def change(**entries: Any) -> None:
        torch.save({**content, "beft_model": content["beft_model"] | entries}, tmp_path / "a.ckpt")

    return change
