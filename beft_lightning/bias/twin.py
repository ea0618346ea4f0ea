"""A small twin of a transformers model: the same layers, few and narrow, so that a forward pass needs no memory."""

import math
import re
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

# Names in the configurations of transformers: of widths, which are all divided by one number; of widths inside an MLP,
# which depend on no other; of heads; of numbers of layers; and of what follows from those, and is computed again.
_WIDTHS = re.compile(
    r"(^|_)(hidden|hidden_sizes?|dims?|hidden_channels|embedding_size|out_hidden_size|rank|n_embd|d_model|d_kv|d_inner|"
    r"d_embed|d_head|embed_dims?|size_per_head|mrope_section)$"
)
_MLP_WIDTHS = re.compile(r"(^|_)(intermediate_sizes?|intermediate_size_mlp|ffn_hidden_size|ffn_dim|n_inner|d_ff)$")
_HEADS = re.compile(r"(^|_)(attention_heads|num_heads|n_heads?)$")
_KEY_HEADS = re.compile(r"(^|_)(key_value_heads|kv_heads|heads_kv)$")
_OF_A_HEAD = re.compile(r"(^|_)(head_dim|rotary_dim|d_kv|d_head|size_per_head|mrope_section)$")
_DEPTHS = re.compile(r"(?<!feat_extract)(?<!window)(^|_)(num_hidden_layers|layers|n_layers?|depth|num_blocks)$")
_DERIVED = ("stage_names", "out_features", "out_indices")
_HEAD_WIDTHS = ("head_dim", "d_kv", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "attention_head_dim")
_TOKEN = re.compile(r"_token_(id|index)$")
#: Largest vocabulary.
_VOCABULARY = 1024
#: Largest values of other entries.
_LIMITS = (
    (re.compile(r"(^|_)(num_experts|num_local_experts|n_routed_experts|num_routed_experts)$"), 16),
    (re.compile(r"(^|_)vocab_size(_per_layer_input)?$"), _VOCABULARY),
    (re.compile(r"^image_size$"), 256),
    (re.compile(r"^max_source_positions$"), 64),
)
#: Smallest width of a head, number of layers, and divisor of the MLP where the rest keeps its width.
_NARROWEST, _FEW, _MLP_DIVISOR = 8, 2, 16
MOST_PARAMETERS = 200_000_000


def twins(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, problems: list[str]
) -> Iterator[PreTrainedModel]:
    """Yield models with random weights on the CPU, in fp32, that can run, from the smallest to one of the same size.

    Args:
        model_class: Their class.
        config: The configuration that theirs are like.
        problems: What went wrong is appended here.
    """
    whole = config.to_dict()
    divisor = _divisor(whole)
    few = max(_FEW, _kinds_within(model_class, config))
    fewer = _shrunk(whole, _head_divisor(whole), few, fewer_heads=True)
    for shape in [_shrunk(whole, divisor, few), fewer, _shrunk(whole, divisor), _shrunk(whole, 1, few), whole]:
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


def _kinds_within(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> int:
    """Return how many layers a model has to have, so that all kinds of its layers are among them; 0 if unknown.

    Later layers may be of another kind: with cross attention, with experts, without attention.
    """
    try:
        with torch.device("meta"):
            model = model_class(config)
    except Exception:  # The problem is met again when the twin is built.
        return 0
    stacks = [stack for stack in model.modules() if isinstance(stack, nn.ModuleList)]
    return max((1 + max(_first_of_kinds(stack), default=0) for stack in stacks), default=0)


def _first_of_kinds(stack: nn.ModuleList) -> Collection[int]:
    """Return the index of the first layer of each kind, told by the classes and names of the modules in it."""
    kinds: dict[frozenset[tuple[str, type]], int] = {}
    for index, layer in enumerate(stack):
        inside = frozenset((re.sub(r"\d+", "#", name), type(child)) for name, child in layer.named_modules())
        kinds.setdefault(inside, index)
    return kinds.values()


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def outside_vocabulary(config: PreTrainedConfig) -> list[str]:
    """Return the entries of a configuration, and of its parts, that name a token outside of the vocabulary there.

    >>> from transformers import BertConfig
    >>> outside_vocabulary(BertConfig(vocab_size=99, eos_token_id=49407))
    ['eos_token_id=49407 (vocab_size=99)']
    """
    return [
        f"{name}={value} (vocab_size={part['vocab_size']})"
        for part in _parts(config.to_dict())
        for name, value in part.items()
        if _TOKEN.search(str(name)) and type(value) is int and value >= _vocabulary(part)
    ]


def _vocabulary(config: dict[str, Any]) -> float:
    size = config.get("vocab_size")
    return size if type(size) is int and size > 0 else math.inf


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
    widths = list(_named(config, _WIDTHS))
    heads = [width for part in parts for width in _head_widths(part)]
    divisor = 64
    while divisor > 1:
        narrow = [width // divisor for width in heads]
        if not any(w % divisor for w in widths) and all(w >= _NARROWEST and w % 2 == 0 for w in narrow):
            return divisor
        divisor //= 2
    return 1


def _head_divisor(config: dict[str, Any]) -> int:
    """Return the largest power of two that divides all numbers of heads, and all widths that are not of a head."""
    numbers = [*_named(config, _HEADS), *_named(config, _KEY_HEADS), *_named(config, _WIDTHS, but=_OF_A_HEAD)]
    common = math.gcd(*numbers)
    return common & -common  # Its lowest bit that is set.


def _named(config: dict[str, Any], names: re.Pattern[str], but: re.Pattern[str] | None = None) -> Iterator[int]:
    """Yield the numbers in a configuration, and in its parts, whose names match a pattern, but not another."""
    for part in _parts(config):
        for name, value in part.items():
            if names.search(str(name)) and not (but and but.search(str(name))):
                yield from _numbers(value)


def _head_widths(config: dict[str, Any]) -> Iterator[int]:
    given = [config[name] for name in _HEAD_WIDTHS if type(config.get(name)) is int]
    width = next(
        (n for name in ("hidden_size", "d_model", "n_embd", "embed_dim", "dim") for n in _numbers(config.get(name))), 0
    )
    heads = [n for name, value in config.items() if _HEADS.search(str(name)) for n in _numbers(value)]
    yield from given or [width // number for number in heads if width]
    yield from _numbers(config.get("rotary_dim"))


def _shrunk(
    config: dict[str, Any], divisor: int, few: int | None = None, *, fewer_heads: bool = False
) -> dict[str, Any]:
    """Return a configuration whose widths are divided, if asked for with few layers, but all kinds that it lists.

    Heads are narrower then, or as wide and fewer.
    """
    depth = max((v for name, v in config.items() if _DEPTHS.search(str(name)) and type(v) is int), default=0)
    lists = [v for v in config.values() if isinstance(v, list | tuple) and len(v) == depth > _FEW]
    kinds = [v for v in lists if len(set(map(str, v))) < depth]  # Else they are the layers' numbers.
    keep = max([few, *(1 + max(list(kind).index(one) for one in kind) for kind in kinds)]) if few else depth
    last = int(min(_vocabulary(config), _VOCABULARY)) - 1
    small: dict[str, Any] = {}
    for name, value in config.items():
        if str(name).lstrip("_") in _DERIVED:
            continue
        if isinstance(value, dict):
            value = _shrunk(value, divisor, few, fewer_heads=fewer_heads)
        elif any(value is kind for kind in kinds):
            value = value[:keep]
        elif _DEPTHS.search(str(name)) and type(value) is int:
            value = min(value, keep)
        elif _TOKEN.search(str(name)) and type(value) is int:
            value = min(value, last)
        else:
            value = _narrowed(str(name), value, divisor, fewer_heads)
        small[name] = value
    return small


def _narrowed(name: str, value: Any, divisor: int, fewer_heads: bool) -> Any:
    if name == "use_cache":
        return False
    heads = _HEADS.search(name) or _KEY_HEADS.search(name)
    width = _WIDTHS.search(name) and not (fewer_heads and _OF_A_HEAD.search(name))
    if _MLP_WIDTHS.search(name):
        divisor = divisor if divisor > 1 else _MLP_DIVISOR
    elif not width and not (fewer_heads and heads):
        limits = [limit for pattern, limit in _LIMITS if pattern.search(name)]
        return min(value, limits[0]) if limits and type(value) is int else value
    if not _numbers(value):
        return value
    return [max(n // divisor, 1) for n in value] if isinstance(value, list | tuple) else max(value // divisor, 1)
