"""Made-up inputs are those that a model takes."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, BlipTextConfig, BlipTextModel

from beft_lightning.bias.sample_inputs import sample_inputs
from tests.tiny import make_model

TINY: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def tiny(model_type: str, **options: Any) -> Any:
    return AutoModel.from_config(AutoConfig.for_model(model_type, **options)).eval()


def test_tokens_are_in_the_vocabulary() -> None:
    model: Any = make_model("bert").base_model.eval()
    first = next(sample_inputs(model))
    assert list(first) == ["input_ids"]
    assert first["input_ids"].max() < model.config.vocab_size
    assert model(**first).last_hidden_state.shape == (1, 12, model.config.hidden_size)
    (ids,) = next(sample_inputs(tiny("bert", **TINY, vocab_size=12))).values()
    assert ids.tolist() == [list(range(12))]


def test_tokens_are_few_where_the_vocabulary_or_the_positions_are() -> None:
    (ids,) = next(sample_inputs(tiny("bert", **TINY, vocab_size=10))).values()
    assert ids.tolist() == [[*range(10), 0, 1]]
    sizes = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    ids_of = {"pad_token_id": 0, "vocab_size": 99, "max_target_positions": 8}
    whisper = tiny("whisper", d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes, **ids_of)
    assert next(sample_inputs(whisper))["decoder_input_ids"].shape == (1, 8)


def test_sequences_of_encoder_and_decoder_differ_in_length() -> None:
    first = next(sample_inputs(tiny("t5", d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=99)))
    assert {name: ids.shape[1] for name, ids in first.items()} == {"input_ids": 12, "decoder_input_ids": 10}


def test_images_have_the_size_of_the_configuration() -> None:
    model = tiny("vit", **TINY, image_size=32, patch_size=16, num_channels=1)
    first = next(sample_inputs(model))
    assert first["pixel_values"].shape == (1, 1, 32, 32)
    assert model(**first).last_hidden_state.shape == (1, 5, 16)


def test_texts_and_images_come_together_before_they_come_alone() -> None:
    vision = {**TINY, "image_size": 32, "patch_size": 16}
    names = [set(inputs) for inputs in sample_inputs(tiny("clip", text_config=TINY, vision_config=vision))]
    assert names[0] == {"input_ids", "pixel_values"}
    assert names.index({"input_ids"}) < names.index({"pixel_values"})


def test_a_model_without_tokens_takes_hidden_states() -> None:
    model: Any = make_model("bert").base_model.encoder
    model.config, model.main_input_name = AutoConfig.for_model("bert", **TINY), "hidden_states"
    assert [{name: values.shape for name, values in inputs.items()} for inputs in sample_inputs(model)] == [
        {"hidden_states": torch.Size([1, 12, 16])}
    ]


def test_patches_come_with_their_shapes() -> None:
    model = tiny("siglip2_vision_model", **TINY, patch_size=4, num_patches=64)
    first = next(sample_inputs(model))
    assert first["pixel_values"].shape == (1, 64, 3 * 4 * 4)
    assert model(**first).last_hidden_state.shape == (1, 64, 16)


def test_series_have_the_length_of_the_configuration() -> None:
    model = tiny("patchtst", d_model=16, num_attention_heads=2, num_hidden_layers=1, ffn_dim=16, context_length=24)
    first = next(sample_inputs(model))
    assert {name: values.shape for name, values in first.items()} == {"past_values": torch.Size([1, 24, 1])}
    assert model(**first).last_hidden_state.shape[-1] == 16


def test_a_model_may_have_positions_without_end() -> None:
    first = next(sample_inputs(tiny("xlnet", d_model=16, n_layer=1, n_head=2, d_inner=16, vocab_size=99)))
    assert first["input_ids"].shape == (1, 12)


def test_cross_attention_takes_the_states_of_an_encoder() -> None:
    blip = BlipTextModel(BlipTextConfig(**TINY, encoder_hidden_size=24))
    assert next(sample_inputs(blip))["encoder_hidden_states"].shape == (1, 9, 24)
    assert all("encoder_hidden_states" not in inputs for inputs in sample_inputs(tiny("bert", **TINY)))


def test_patches_come_with_their_grid() -> None:
    vision = tiny("qwen2_5_vl_vision", hidden_size=16, num_heads=2, depth=1, intermediate_size=16, out_hidden_size=16)
    first = next(sample_inputs(vision))
    assert vision(**first).pooler_output.shape == (16, 16)
