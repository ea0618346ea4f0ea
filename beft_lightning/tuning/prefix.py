"""Prefix tuning (Li and Liang 2021, arXiv 2101.00190): trained keys and values in front of every layer's own.

They enter as a cache that is filled beforehand, so that attention itself is the model's own. The positions of the
tokens stay what they are without a prefix.
"""

import copy
import inspect
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from beft_lightning.bias.architectures import attention_of, pretrained_model
from beft_lightning.errors import BeftError


class Prefix(nn.Module):
    """Keys and values that all tokens see, in every layer.

    Args:
        key_values: What they are at the start, shape ``(layers, 2, key-value heads, virtual tokens, head size)``.
            They are held and trained in fp32.
    """

    def __init__(self, key_values: Tensor) -> None:
        super().__init__()
        self.key_values = nn.Parameter(key_values.float())

    def precede(
        self, model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A forward pre-hook of the model without its head: put the prefix into its cache and its attention mask.

        In the later steps of ``generate``, the cache that this has filled comes back, and only the mask is lengthened.

        Raises:
            BeftError: If there are no token ids, or the model would drop the prefix: in a cache of another kind, behind
                a sliding window, or with activation checkpointing.
        """
        names = inspect.signature(model.forward).parameters
        call = {**dict(zip(names, args, strict=False)), **kwargs}
        ids, mask = call.get("input_ids"), call.get("attention_mask")
        if ids is None:
            raise BeftError("a prefix stands before tokens: give the model input_ids, not inputs_embeds.")
        batch, columns = ids.shape
        tokens = self.key_values.shape[3]
        cache = call.get("past_key_values")
        if cache is None:
            cache = DynamicCache(config=model.config)
        if not isinstance(cache, DynamicCache):
            raise BeftError(
                f"a prefix stands in a DynamicCache, not in a {type(cache).__name__}: leave out cache_implementation."
            )
        seen = cache.get_seq_length()
        if seen and mask is not None and mask.shape[-1] == columns:
            # Without `use_cache`, `generate` hands back a cache together with the whole text that it holds.
            cache, seen = DynamicCache(config=model.config), 0
        if seen:
            seen -= tokens
        else:
            self._fill(cache, batch, model.dtype)
        _check_kept(model, tokens + seen + columns)
        if "position_ids" in names and call.get("position_ids") is None:
            call["position_ids"] = _positions(model, ids, mask, seen)
        if mask is None:
            mask = ids.new_ones(batch, seen + columns)
        # What is visible is a one, but in masks that are added a zero.
        visible = 0.0 if mask.dim() == 4 and mask.is_floating_point() else 1.0
        call |= {"past_key_values": cache, "attention_mask": F.pad(mask, (tokens, 0), value=visible)}
        return (), call

    def _fill(self, cache: DynamicCache, batch: int, dtype: torch.dtype) -> None:
        device = self.key_values.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        for layer, (keys, values) in enumerate(self.key_values.to(dtype)):
            cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), layer)


def check_takes_prefix(module: nn.Module) -> None:
    """Refuse a model that would not see a prefix.

    Raises:
        BeftError: If its attention does not take one, or is unknown.
    """
    config = pretrained_model(module).config
    if not attention_of(config).takes_prefix:
        raise BeftError(
            f"tune 'prefix' cannot train a {config.model_type}, whose attention is not known to take a prefix: choose "
            "another way, for example 'value', or another backbone, for example of type 'bert', 'opt' or 'llama'."
        )


def add_prefix(module: nn.Module, num_virtual_tokens: int = 5, seed: int = 0) -> Prefix:
    """Put a prefix before the inputs of a model. Its first values are what random tokens have as keys and values.

    Five tokens that start from real activations are MeZO's values (arXiv 2305.17333).

    Args:
        module: A model, or any module that contains one.
        num_virtual_tokens: Length of the prefix.
        seed: Seed of the random tokens.

    Raises:
        BeftError: If the model takes no prefix, or none of this length.
    """
    check_takes_prefix(module)
    model = pretrained_model(module)
    attention = attention_of(model.config)
    limits = [getattr(model.config, "max_position_embeddings", None), attention.window]
    longest = min((limit for limit in limits if limit), default=num_virtual_tokens)
    if attention.positions == "padding":
        longest -= model.config.pad_token_id + 1
    if not (isinstance(num_virtual_tokens, int) and 1 <= num_virtual_tokens <= longest):
        raise BeftError(
            f"num_virtual_tokens must be a whole number from 1 to {longest}, which the model can see at once, not "
            f"{num_virtual_tokens!r}."
        )
    # OPT's language model calls the decoder inside its base model, and so does the base model.
    base: Any = getattr(model.base_model, "decoder", model.base_model)
    embeddings = base.get_input_embeddings().weight
    if any(parameter.numel() == 0 for parameter in base.parameters()):
        raise BeftError(
            "a prefix starts from what the model makes of some tokens, and here the weights are sharded as they are "
            "loaded (ZeRO-3): use another strategy."
        )
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(embeddings), (1, num_virtual_tokens), generator=draw, device="cpu")
    prefix = Prefix(activations(base, drawn.to(embeddings.device)))
    base.add_module("prefix", prefix)
    base.register_forward_pre_hook(prefix.precede, with_kwargs=True)
    return prefix


@torch.no_grad()
def activations(base: Any, token_ids: Tensor) -> Tensor:
    """The keys and values that a model computes for some tokens.

    Args:
        base: A model without its head.
        token_ids: Shape ``(1, tokens)``.

    Returns:
        As :class:`Prefix` takes them.
    """
    device, half = token_ids.device.type, base.dtype in (torch.bfloat16, torch.float16)
    if device == "meta":  # There are only shapes, and no autocast to bring precisions together.
        base, half = copy.deepcopy(base).float(), False
    cache: Any = DynamicCache(config=base.config)
    training = base.training
    base.eval()
    try:
        with torch.autocast(device, base.dtype) if half else nullcontext():
            # Embedded, since some models look for padding among ids, and meta tensors have no values.
            base(inputs_embeds=base.get_input_embeddings()(token_ids), past_key_values=cache)
    finally:
        base.train(training)
    return torch.stack([torch.cat([layer.keys, layer.values]) for layer in cache.layers])


def _positions(model: PreTrainedModel, ids: Tensor, mask: Tensor | None, seen: int) -> Tensor:
    """The positions that the model gives tokens if it is not told any, and has no prefix."""
    counted = attention_of(model.config).positions
    if counted == "mask" and mask is not None:
        return ((mask.cumsum(dim=1) * mask).long() - 1)[:, seen:]
    if counted == "padding":
        embeddings: Any = model.embeddings
        positions: Tensor = embeddings.create_position_ids_from_input_ids(ids, embeddings.padding_idx)
        return positions
    return torch.arange(seen, seen + ids.shape[1], device=ids.device).unsqueeze(0)


def _check_kept(model: PreTrainedModel, columns: int) -> None:
    """Refuse what would make the model leave out the prefix without a word."""
    if model.training and getattr(model, "gradient_checkpointing", False):
        raise BeftError("activation_checkpointing drops the cache that a prefix stands in: leave it out.")
    window = attention_of(model.config).window
    if window is not None and columns > window:
        raise BeftError(
            f"prefix and input have {columns} tokens together, and the model's sliding window sees {window}: set "
            "data.max_length so that both fit."
        )
