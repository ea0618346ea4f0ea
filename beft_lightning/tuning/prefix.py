"""Prefix tuning (arXiv 2101.00190): trained keys and values before those of the tokens, in each layer.

They enter through a cache that is filled beforehand, so that the attention code of the model runs unchanged. The
tokens keep the positions that they have without a prefix.
"""

import copy
import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from beft_lightning.bias.lookup import attention_of, pretrained_model
from beft_lightning.bias.precision import HALF
from beft_lightning.errors import BeftError
from beft_lightning.tuning.method import TuningMethod


@dataclass(frozen=True)
class PrefixTuning(TuningMethod):
    """Keys and values of virtual tokens before the input, in each layer (prefix tuning, arXiv 2101.00190).

    Args:
        num_virtual_tokens: Length of the prefix. Five is MeZO's value (arXiv 2305.17333).
        seed: Seed of the random tokens whose keys and values the prefix starts from.
    """

    name: ClassVar[str] = "prefix"
    needs_cache: ClassVar[bool] = True
    num_virtual_tokens: int = 5
    seed: int = 0

    @property
    def export_obstacle(self) -> str:
        """The prefix, which stands in a cache."""
        return "a prefix, which is no part of the model's own weights"

    def check(self, model: nn.Module) -> None:
        """Check that the attention of the model takes a prefix.

        Raises:
            BeftError: If it does not.
        """
        check_takes_prefix(model)

    def apply(self, model: nn.Module) -> None:
        """Add the prefix, and train it alone."""
        model.requires_grad_(False)
        add_prefix(model, self.num_virtual_tokens, self.seed)


class Prefix(nn.Module):
    """Keys and values that all tokens attend to, in each layer.

    Args:
        key_values: Initial values, shape ``(layers, 2, key-value heads, virtual tokens, head size)``. They are held and
            trained in fp32.
    """

    def __init__(self, key_values: Tensor) -> None:
        super().__init__()
        self.key_values = nn.Parameter(key_values.float())

    def precede(
        self, model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put the prefix into the cache and the attention mask of a call: a forward pre-hook.

        In the later steps of ``generate``, the cache comes back filled, and only the mask is lengthened.

        Args:
            model: The model without its head.
            args: Positional arguments of its ``forward``.
            kwargs: Keyword arguments of its ``forward``.

        Returns:
            The arguments to call ``forward`` with.

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
    """Check that the attention of a model takes a prefix.

    Args:
        module: A model, or any module that contains one.

    Raises:
        BeftError: If its attention does not take one, or is unknown.
    """
    config = pretrained_model(module).config
    if not attention_of(config).takes_prefix:
        raise BeftError(
            f"tune 'prefix' cannot train a {config.model_type}, whose attention is not known to take a prefix: choose "
            "another method, for example 'value', or another backbone, for example of type 'bert', 'opt' or 'llama'."
        )


def add_prefix(module: nn.Module, num_virtual_tokens: int = 5, seed: int = 0) -> Prefix:
    """Put a trainable prefix before the inputs of a model. It starts from the keys and values of random tokens.

    Args:
        module: A model, or any module that contains one; changed in place.
        num_virtual_tokens: Length of the prefix.
        seed: Seed of the random tokens.

    Returns:
        The prefix, which the model now contains.

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
    """Compute the keys and values of some tokens.

    Args:
        base: A model without its head.
        token_ids: Shape ``(1, tokens)``.

    Returns:
        Shape ``(layers, 2, key-value heads, tokens, head size)``.
    """
    device, half = token_ids.device.type, base.dtype in HALF
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
    """Return the positions that the model itself gives to tokens, if it has no prefix."""
    counted = attention_of(model.config).positions
    if counted == "mask" and mask is not None:
        return ((mask.cumsum(dim=1) * mask).long() - 1)[:, seen:]
    if counted == "padding":
        embeddings: Any = model.embeddings
        positions: Tensor = embeddings.create_position_ids_from_input_ids(ids, embeddings.padding_idx)
        return positions
    return torch.arange(seen, seen + ids.shape[1], device=ids.device).unsqueeze(0)


def _check_kept(model: PreTrainedModel, columns: int) -> None:
    """Check that the model will not silently drop the prefix.

    Args:
        model: The model without its head.
        columns: Number of tokens, prefix included.

    Raises:
        BeftError: If activation checkpointing or a sliding window would drop it.
    """
    if model.training and getattr(model, "gradient_checkpointing", False):
        raise BeftError("activation_checkpointing drops the cache that a prefix stands in: leave it out.")
    window = attention_of(model.config).window
    if window is not None and columns > window:
        raise BeftError(
            f"prefix and input have {columns} tokens together, and the model's sliding window sees {window}: set "
            "data.max_length so that both fit."
        )
