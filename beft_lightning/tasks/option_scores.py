"""Log-probabilities of options that share a prompt, from a single pass over the prompt.

Every option sees the prompt and itself, through an attention mask, and its positions continue the prompt's. The
results are those of running each option behind its own copy of the prompt, gradients included.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.data.options import PADDING, PROMPT
from beft_lightning.errors import BackboneError


def option_mask(segment_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive attention mask of rows with several options.

    Args:
        segment_ids: Segment of each column: padding, prompt, or an option's number. Shape ``(batch, columns)``.
        dtype: Precision of the mask: that of the model's activations.

    Returns:
        0 where a column (last dimension) is visible from another (second last), the lowest number elsewhere; shape
        ``(batch, 1, columns, columns)``.
    """
    viewer, seen = segment_ids.unsqueeze(2), segment_ids.unsqueeze(1)
    columns = segment_ids.shape[1]
    causal = torch.ones(columns, columns, dtype=torch.bool, device=segment_ids.device).tril()
    visible = causal & (seen != PADDING) & ((seen == PROMPT) | (seen == viewer))
    # A padding column sees itself: a softmax over nothing is not a number.
    visible |= torch.eye(columns, dtype=torch.bool, device=segment_ids.device)
    mask = torch.zeros(visible.shape, dtype=dtype, device=segment_ids.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min).unsqueeze(1)


def option_log_probabilities(model: PreTrainedModel, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Sum of the log-probabilities of each option's tokens, and their number.

    Args:
        model: A causal language model.
        batch: What :func:`~beft_lightning.data.options.pack_options` gives.

    Returns:
        Two vectors with one entry for each option of the batch, in its order.

    Raises:
        BackboneError: If options stand side by side and the model's attention cannot keep them apart.
    """
    segments, kept = batch["segment_ids"], batch["logits_to_keep"]
    # Where no option has a column of its own, rows are ordinary ones, and the model's own mask is the fastest.
    packed = bool((segments > PROMPT).any())
    if packed:
        _check_attention(model, segments.shape[1])
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=option_mask(segments, model.dtype) if packed else (segments != PADDING).long(),
        position_ids=batch["position_ids"],
        use_cache=False,
        logits_to_keep=kept,
    ).logits
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    row, column = batch["target_row"], batch["target_column"] - (segments.shape[1] - kept)
    normalisers = logits.logsumexp(dim=-1)
    scores = logits[row, column, batch["target_token"]] - normalisers[row, column]
    options = len(batch["option_row"])
    sums = scores.new_zeros(options).index_add(0, batch["target_option"], scores)
    return sums, torch.bincount(batch["target_option"], minlength=options).to(sums)


def _check_attention(model: PreTrainedModel, columns: int) -> None:
    """Refuse attention that goes by columns, where options side by side need it to go by positions.

    Raises:
        BackboneError: If the model has ALiBi positions, or a sliding window shorter than the row.
    """
    config = model.config
    if config.model_type == "bloom" or getattr(config, "alibi", False):
        raise BackboneError(
            f"{config.model_type} with ALiBi reads positions off the attention mask, so the options of an example "
            "cannot share its prompt: choose another backbone, or a task whose options are one token each."
        )
    local = "local" in getattr(config, "attention_layers", ())  # GPT-Neo
    window = config.window_size if local else getattr(config, "sliding_window", None)
    if window is not None and columns > window:
        raise BackboneError(
            f"{config.model_type} looks back {window} tokens in some layers, and a prompt with its options has "
            f"{columns}: set data.max_length so that they fit, or choose another backbone."
        )


def by_example(scores: Tensor, option_row: Tensor, examples: int) -> Tensor:
    """Scores of a batch's options as a table of shape ``(examples, most options)``; minus infinity where none is.

    Args:
        scores: One score for each option.
        option_row: The example of each option, ascending.
        examples: Number of examples.
    """
    counts = torch.bincount(option_row, minlength=examples)
    begin = counts.cumsum(0) - counts
    place = torch.arange(len(option_row), device=option_row.device) - begin[option_row]
    table = scores.new_full((examples, int(counts.max())), float("-inf"))
    return table.index_put((option_row, place), scores)


def classification_loss(sums: Tensor, lengths: Tensor, option_row: Tensor, gold: Tensor) -> Tensor:
    """Cross-entropy over the options' mean log-probabilities, averaged over the examples.

    Args:
        sums: Log-probability of each option.
        lengths: Number of tokens of each option.
        option_row: The example of each option.
        gold: Index of the right option of each example, shape ``(examples,)``.
    """
    return F.cross_entropy(by_example(sums / lengths, option_row, len(gold)), gold)


def language_model_loss(sums: Tensor, lengths: Tensor) -> Tensor:
    """Cross-entropy averaged over all option tokens of the batch, so that long options weigh more."""
    return -sums.sum() / lengths.sum()
