"""A small twin of a transformers model: the same layers, few and narrow, so that a forward pass needs no memory."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# Names in the configurations of transformers: of widths, which are all divided by one number; of numbers of layers; and
# of what follows from those numbers, and is computed again.
_WIDTHS = re.compile(
    r"(^|_)(hidden|hidden_sizes?|dims?|hidden_channels|embedding_size|intermediate_sizes?|ffn_hidden_size|out_hidden_size|rank|"
    r"n_embd|n_inner|d_model|d_ff|d_kv|d_inner|d_embed|d_head|embed_dims?|size_per_head|mrope_section)$"
)
_DEPTHS = re.compile(r"(?<!feat_extract)(^|_)(num_hidden_layers|layers|n_layers?|depth|num_blocks)$")
_DERIVED = ("stage_names", "out_features", "out_indices", "_out_features", "_out_indices")
_HEAD_WIDTHS = ("head_dim", "d_kv", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "attention_head_dim")
#: Largest values of other entries.
_LIMITS = (
    (re.compile(r"(^|_)(num_experts|num_local_experts|n_routed_experts|num_routed_experts)$"), 16),
    (re.compile(r"(^|_)vocab_size$"), 1024),
    (re.compile(r"_token_(id|index)$"), 1023),
    (re.compile(r"^image_size$"), 256),
    (re.compile(r"^max_source_positions$"), 64),
)
#: Smallest width of a head, and number of layers.
_NARROWEST, _LAYERS = 8, 2
MOST_PARAMETERS = 200_000_000


def twins(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, problems: list[str]
) -> Iterator[PreTrainedModel]:
    """Yield models with random weights on the CPU, in fp32, that can run: narrow, then with few layers, then as is.

    Args:
        model_class: Their class.
        config: The configuration that theirs are like.
        problems: What went wrong is appended here.
    """
    whole = config.to_dict()
    shapes = [_shrunk(whole, divisor) for divisor in dict.fromkeys((_divisor(whole), 1))]
    for shape in [*shapes, whole]:
        try:
            small = type(config).from_dict(shape)
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in model_class(small).parameters())
            if size > MOST_PARAMETERS:
                problems.append(f"a small twin would have {size:,} parameters")
                continue
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                twin = model_class(small).float().eval()
        except Exception as error:  # Configurations raise anything for values that do not fit.
            problems.append(first_line(error))
            continue
        yield twin


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _parts(value)


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [number for number in values if type(number) is int and number > 0]


def _divisor(config: dict[str, Any]) -> int:
    """Return the largest power of two that divides all widths, and leaves heads of an even width."""
    parts = list(_parts(config))
    widths = [n for part in parts for name, value in part.items() if _WIDTHS.search(str(name)) for n in _numbers(value)]
    heads = [width for part in parts for width in _head_widths(part)]
    divisor = 64
    while divisor > 1:
        narrow = [width // divisor for width in heads]
        if not any(w % divisor for w in widths) and all(w >= _NARROWEST and w % 2 == 0 for w in narrow):
            return divisor
        divisor //= 2
    return 1


def _head_widths(config: dict[str, Any]) -> Iterator[int]:
    width = config.get("hidden_size") or config.get("d_model")
    heads = config.get("num_attention_heads") or config.get("num_heads")
    if type(width) is int and type(heads) is int:
        yield width // heads
    yield from (config[name] for name in _HEAD_WIDTHS if type(config.get(name)) is int)


def _shrunk(config: dict[str, Any], divisor: int) -> dict[str, Any]:
    """Return a configuration with few layers, all kinds of them, whose widths are divided."""
    depth = max((v for name, v in config.items() if _DEPTHS.search(str(name)) and type(v) is int), default=0)
    kinds = [v for v in config.values() if isinstance(v, list | tuple) and len(v) == depth > _LAYERS]
    keep = max([_LAYERS, *(1 + max(list(kind).index(one) for one in kind) for kind in kinds)])
    small: dict[str, Any] = {}
    for name, value in config.items():
        if name in _DERIVED:
            continue
        if isinstance(value, dict):
            value = _shrunk(value, divisor)
        elif any(value is kind for kind in kinds):
            value = value[:keep]
        elif _DEPTHS.search(str(name)) and type(value) is int:
            value = min(value, keep)
        elif divisor > 1:
            value = _narrowed(str(name), value, divisor)
        small[name] = value
    return small


def _narrowed(name: str, value: Any, divisor: int) -> Any:
    if _WIDTHS.search(name) and _numbers(value):
        return [n // divisor for n in value] if isinstance(value, list | tuple) else value // divisor
    limits = [limit for pattern, limit in _LIMITS if pattern.search(name)]
    return min(value, limits[0]) if limits and type(value) is int else value
