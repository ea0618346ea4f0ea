"""Biases that a backbone has stored are loaded, or the backbone is refused."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from beft_lightning.errors import BackboneError
from beft_lightning.models import load_model
from tests.tiny import LAYERS, VOCABULARY, WIDTH, save_backbone


@pytest.mark.parametrize("causal", [False, True])
def test_biases_without_a_place_are_refused_with_the_remedy(causal: bool, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, "llama", causal=causal)
    auto_class = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    load_model(auto_class, folder)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "attention_bias": False}))
    message = rf"holds {4 * LAYERS} biases that a llama model .* has no place for.*k_proj.bias'.*Set attention_bias or"
    with pytest.raises(BackboneError, match=message):
        load_model(auto_class, folder)


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "opt", "roberta"])
def test_weights_of_another_head_are_left_out(model_type: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, model_type, causal=True)
    load_model(AutoModelForSequenceClassification, folder)


@pytest.mark.parametrize("biases", [False, True])
def test_biases_of_a_gguf_file_are_looked_for(biases: bool, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    import torch

    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(VOCABULARY))
    shapes: dict[str, tuple[int, ...]] = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH)}
    shapes |= {"attn_output": (WIDTH, WIDTH), "ffn_gate": (48, WIDTH), "ffn_up": (48, WIDTH), "ffn_down": (WIDTH, 48)}
    shapes |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
    tensors = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    tensors |= {"token_embd.weight": (len(VOCABULARY), WIDTH), "output_norm.weight": (WIDTH,)}
    tensors |= {"output.weight": (len(VOCABULARY), WIDTH)}
    if biases:
        tensors["blk.0.attn_v.bias"] = (WIDTH,)
    for name, shape in tensors.items():
        writer.add_tensor(name, torch.randn(shape).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if biases:
        with pytest.raises(BackboneError, match=r"holds 1 biases .*'model\.layers\.0\.self_attn\.v_proj\.bias'.*GGUF"):
            load_model(AutoModelForCausalLM, str(tmp_path), gguf_file="a.gguf")
    else:
        load_model(AutoModelForCausalLM, str(tmp_path), gguf_file="a.gguf")
