"""Made-up inputs of a transformers model, from its configuration."""

import inspect
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

#: Lengths of the sequences; they differ, so that shapes tell them apart.
_TOKENS, _DECODER_TOKENS, _ENCODER_TOKENS = 12, 10, 9
#: Names of what parts of models take in place of tokens, images or sounds.
_STATES = ("inputs_embeds", "query_embeds", "hidden_states", "context")
_IMAGE = 64


def sample_inputs(model: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Yield inputs that a model's ``forward`` may take, the most complete first.

    Args:
        model: The model, in fp32 on the CPU.
    """
    config = model.config
    accepted = {*inspect.signature(model.forward).parameters, str(model.main_input_name)}
    for name in ("encoder_hidden_states", "cross_attention_states"):
        if name in accepted and any("cross" in path for path, _ in model.named_modules()):
            states = {name: torch.randn(1, _ENCODER_TOKENS, _encoder_width(config))}
            yield from ({**inputs, **states} for inputs in _inputs(config, accepted))
    yield from _inputs(config, accepted)


def _inputs(config: PreTrainedConfig, accepted: Collection[str]) -> Iterator[dict[str, Tensor]]:
    text = _text(config, accepted)
    decoder = {"decoder_input_ids": _token_ids(config, _DECODER_TOKENS)} if "decoder_input_ids" in accepted else {}
    if "grid_thw" in accepted:
        name = "pixel_values" if "pixel_values" in accepted else "hidden_states"
        sizes = {"merge_sizes": torch.ones(1, dtype=torch.long)} if "merge_sizes" in accepted else {}
        for patches in _patches(config):
            yield {name: patches, "grid_thw": torch.tensor([[1, 8, 8]]), **sizes}
    if "past_values" in accepted:
        length, channels = (_of_any(config, (name,), 0) for name in ("context_length", "num_input_channels"))
        if length and channels:
            yield {"past_values": torch.randn(1, length, channels)}
    others = [*_images(config, accepted), *_sounds(config, accepted)]
    for other in others:
        yield {**text, **other, **decoder}
    if text:
        yield {**text, **decoder}
    for other in others:
        yield {**other, **decoder}
    yield from _states(config, accepted)


def _text(config: PreTrainedConfig, accepted: Collection[str]) -> dict[str, Tensor]:
    text = {"input_ids": _token_ids(config, _TOKENS)} if "input_ids" in accepted else {}
    if text and "query_embeds" in accepted:
        text["query_embeds"] = torch.randn(1, _TOKENS, config.hidden_size)
    if "bbox" in accepted:
        text["bbox"] = torch.zeros(1, _TOKENS, 4, dtype=torch.long)
    if "lang_ids" in accepted:
        text["lang_ids"] = torch.zeros(1, dtype=torch.long)
    if "visual_feats" in accepted:
        regions, width = 4, config.visual_feat_dim
        text |= {"visual_feats": torch.randn(1, regions, width), "visual_pos": torch.rand(1, regions, 4)}
    return text


def _token_ids(config: PreTrainedConfig, length: int) -> Tensor:
    text = config.get_text_config()
    for name in ("max_position_embeddings", "max_target_positions"):
        positions = getattr(text, name, None) or length
        if 0 < positions < length:  # XLNet's -1 stands for any.
            length = positions
    words = getattr(text, "vocab_size", 0) or length
    first = 5 if words > length + 5 else 0
    return (torch.arange(first, first + length) % words)[None]


def _encoder_width(config: PreTrainedConfig) -> int:
    """Return the width of the states that cross attention takes."""
    own = (getattr(config, name, None) for name in ("encoder_hidden_size", "cross_attention_hidden_size"))
    return next(filter(None, own), None) or _of_any(config, ("hidden_size", "d_model", "n_embd"), 1)


def _of_any(config: PreTrainedConfig, names: tuple[str, ...], default: Any) -> Any:
    """Return the first of the named values that a configuration or a part of it has."""
    parts = [config, *(value for value in vars(config).values() if isinstance(value, PreTrainedConfig))]
    found = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in found if value), default)


def _images(config: PreTrainedConfig, accepted: Collection[str]) -> Iterator[dict[str, Tensor]]:
    if "spatial_shapes" in accepted:
        shape = {"pixel_attention_mask": torch.ones(1, 64, dtype=torch.long), "spatial_shapes": torch.tensor([[8, 8]])}
        yield from ({"pixel_values": patches[None], **shape} for patches in _patches(config) if patches.ndim == 2)
        return
    if "pixel_values" not in accepted:
        return
    channels = _of_any(config, ("num_channels", "in_channels", "in_chans"), 3)
    size = _of_any(config, ("image_size", "img_size"), _IMAGE)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if "aspect_ratio_ids" in accepted:
        tiles = _of_any(config, ("max_num_tiles",), 1)
        ratio = {"aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long), "aspect_ratio_mask": torch.ones(1, 1, tiles)}
        yield {"pixel_values": torch.randn(1, 1, tiles, channels, height, width), **ratio}
    if frames := _of_any(config, ("num_frames",), 0):
        yield {"pixel_values": torch.randn(1, frames, channels, height, width)}
    yield {"pixel_values": torch.randn(1, channels, height, width)}


def _sounds(config: PreTrainedConfig, accepted: Collection[str]) -> Iterator[dict[str, Tensor]]:
    for name in ("input_values", "input_features"):
        yield from ({name: values} for values in (_waves(config) if name in accepted else ()))
    if {"input_features", "input_features_mask"} <= set(accepted):
        for values in _waves(config):
            mask = torch.ones(1, values.shape[-1], dtype=torch.long)
            yield {"input_features": values, "input_features_mask": mask}


def _waves(config: PreTrainedConfig) -> Iterator[Tensor]:
    """Yield sounds as spectra, and as they are."""
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
    yield torch.randn(1, 1, 128, bins)


def _states(config: PreTrainedConfig, accepted: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Yield what takes the place of tokens, images or sounds in parts of models."""
    name = next((name for name in _STATES if name in accepted), None)
    mask = {"attention_mask": torch.ones(1, _TOKENS)} if name == "context" else {}
    widths = {_of_any(config, (of,), 0): None for of in ("hidden_size", "d_model", "input_dim")}
    yield from ({name: torch.randn(1, _TOKENS, width), **mask} for width in widths if name and width)


def _patches(config: PreTrainedConfig) -> Iterator[Tensor]:
    """Yield the patches of one image of 8 x 8 patches: flat, and as small images."""
    channels = _of_any(config, ("in_channels", "num_channels", "in_chans"), 3)
    size, frames = _of_any(config, ("patch_size",), 14), _of_any(config, ("temporal_patch_size",), 1)
    for length in dict.fromkeys((frames, 2)):
        yield torch.randn(64, channels * length * size * size)
    yield torch.randn(64, channels, size, size)
    yield torch.randn(1, 64, channels, size, size)
