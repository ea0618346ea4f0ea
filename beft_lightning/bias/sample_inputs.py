"""Made-up inputs of a transformers model, from its configuration."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

#: Lengths of the sequences; they differ, so that shapes tell them apart.
_TOKENS, _DECODER_TOKENS = 12, 10
_IMAGE = 64


def sample_inputs(model: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Yield inputs that a model's ``forward`` may take, the most complete first.

    Args:
        model: The model, in fp32 on the CPU.
    """
    config = model.config
    accepted = {*inspect.signature(model.forward).parameters, str(model.main_input_name)}
    text = {"input_ids": _token_ids(config, _TOKENS)} if "input_ids" in accepted else {}
    if "bbox" in accepted:
        text["bbox"] = torch.zeros(1, _TOKENS, 4, dtype=torch.long)
    if "lang_ids" in accepted:
        text["lang_ids"] = torch.zeros(1, dtype=torch.long)
    if "visual_feats" in accepted:
        regions, width = 4, config.visual_feat_dim
        text |= {"visual_feats": torch.randn(1, regions, width), "visual_pos": torch.rand(1, regions, 4)}
    decoder = {}
    if "decoder_input_ids" in accepted:
        decoder["decoder_input_ids"] = _token_ids(config, _DECODER_TOKENS)
    if "grid_thw" in accepted:
        name = "pixel_values" if "pixel_values" in accepted else "hidden_states"
        for patches in _patches(config):
            yield {name: patches, "grid_thw": torch.tensor([[1, 8, 8]])}
    images = list(_images(config)) if "pixel_values" in accepted else []
    if "spatial_shapes" in accepted:
        shape = {"pixel_attention_mask": torch.ones(1, 64, dtype=torch.long), "spatial_shapes": torch.tensor([[8, 8]])}
        images = [{"pixel_values": patches[None], **shape} for patches in _patches(config)]
    if "past_values" in accepted:
        length, channels = (_of_any(config, (name,), 0) for name in ("context_length", "num_input_channels"))
        if length and channels:
            yield {"past_values": torch.randn(1, length, channels)}
    sounds: list[dict[str, Tensor]] = [
        {name: values} for name in ("input_values", "input_features") if name in accepted for values in _sounds(config)
    ]
    if "input_features_mask" in accepted:
        sounds += [
            {**sound, "input_features_mask": torch.ones(1, sound["input_features"].shape[-1], dtype=torch.long)}
            for sound in sounds
        ]
    for other in [*images, *sounds]:
        yield {**text, **other, **decoder}
    if text:
        yield {**text, **decoder}
    for other in [*images, *sounds]:
        yield {**other, **decoder}
    if "hidden_states" in accepted or "inputs_embeds" in accepted:
        name = "inputs_embeds" if "inputs_embeds" in accepted else "hidden_states"
        if width := _of_any(config, ("hidden_size", "d_model"), 0):
            yield {name: torch.randn(1, _TOKENS, width)}


def _token_ids(config: PreTrainedConfig, length: int) -> Tensor:
    text = config.get_text_config()
    for name in ("max_position_embeddings", "max_target_positions"):
        positions = getattr(text, name, None) or length
        if 0 < positions < length:  # XLNet's -1 stands for any.
            length = positions
    words = getattr(text, "vocab_size", 0) or length
    first = 5 if words > length + 5 else 0
    return (torch.arange(first, first + length) % words)[None]


def _of_any(config: PreTrainedConfig, names: tuple[str, ...], default: Any) -> Any:
    """Return the first of the named values that a configuration or a part of it has."""
    parts = [config, *(value for value in vars(config).values() if isinstance(value, PreTrainedConfig))]
    found = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in found if value), default)


def _images(config: PreTrainedConfig) -> Iterator[dict[str, Tensor]]:
    channels = _of_any(config, ("num_channels", "in_channels", "in_chans"), 3)
    size = _of_any(config, ("image_size", "img_size"), _IMAGE)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    frames = _of_any(config, ("num_frames",), 0)
    if frames:
        yield {"pixel_values": torch.randn(1, frames, channels, height, width)}
    yield {"pixel_values": torch.randn(1, channels, height, width)}


def _sounds(config: PreTrainedConfig) -> Iterator[Tensor]:
    bins = _of_any(
        config, ("num_mel_bins", "feature_size", "input_feat_per_channel", "feature_projection_input_dim"), 80
    )
    if positions := _of_any(config, ("max_source_positions",), 0):
        yield torch.randn(1, bins, 2 * positions)
    if length := _of_any(config, ("max_length",), 0):
        yield torch.randn(1, length, bins)
    yield torch.randn(1, 4000)
    yield torch.randn(1, 128, bins)
    yield torch.randn(1, 1, 4000)


def _patches(config: PreTrainedConfig) -> Iterator[Tensor]:
    """Yield the flat patches of one image of 8 x 8 patches."""
    channels = _of_any(config, ("in_channels", "num_channels", "in_chans"), 3)
    size, frames = _of_any(config, ("patch_size",), 14), _of_any(config, ("temporal_patch_size",), 1)
    yield torch.randn(64, channels * frames * size * size)
