"""Log-probabilities of options that share a prompt, from a single pass over the prompt.

Every option sees the prompt and itself, through an attention mask, and its positions continue the prompt's. The
results are those of running each option behind its own copy of the prompt, gradients included.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.bias import attention_of
from beft_lightning.bias.precision import HALF
from beft_lightning.data.packed_options import PADDING, PROMPT


def option_mask(segment_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the additive attention mask of rows with several options.

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
    """Return the sum of the log-probabilities of each option's tokens, and their number.

    Args:
        model: A causal language model.
        batch: A batch of :func:`~beft_lightning.data.packed_options.pack_options`.

    Returns:
        Two vectors with one entry for each option of the batch, in its order.
    """
    batch, inputs = row_inputs(model, batch)
    logits = model(**inputs).logits
    if logits.dtype in HALF:
        logits = logits.float()
    row, column = batch["target_row"], batch["target_column"] - (batch["input_ids"].shape[1] - batch["logits_to_keep"])
    normalisers = logits.logsumexp(dim=-1)
    scores = logits[row, column, batch["target_token"]] - normalisers[row, column]
    options = len(batch["option_row"])
    sums = scores.new_zeros(options).index_add(0, batch["target_option"], scores)
    return sums, torch.bincount(batch["target_option"], minlength=options).to(sums)


def row_inputs(model: PreTrainedModel, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a batch of rows as the model can take it, and the model's arguments for it.

    Args:
        model: A causal language model.
        batch: A batch of :func:`~beft_lightning.data.packed_options.pack_options`.
    """
    # Where no option has a column of its own, rows are ordinary ones, and the model's own mask is the fastest.
    packed = bool((batch["segment_ids"] > PROMPT).any())
    if needs_separate_rows(model, batch):
        batch, packed = separate_rows(batch), False
    segments = batch["segment_ids"]
    return batch, {
        "input_ids": batch["input_ids"],
        "attention_mask": option_mask(segments, model.dtype) if packed else (segments != PADDING).long(),
        "position_ids": batch["position_ids"],
        "use_cache": False,
        "logits_to_keep": batch["logits_to_keep"],
    }


def needs_separate_rows(model: PreTrainedModel, batch: dict[str, Any]) -> bool:
    """Return whether each option of a batch gets a row of its own, in the order of ``option_row``.

    Args:
        model: A causal language model.
        batch: A batch of :func:`~beft_lightning.data.packed_options.pack_options`.
    """
    packed = bool((batch["segment_ids"] > PROMPT).any())
    return packed and not takes_packed_rows(model, batch["input_ids"].shape[1])


def takes_packed_rows(model: PreTrainedModel, columns: int) -> bool:
    """Return whether options may stand side by side in a row for this model.

    ALiBi counts positions along the row, whatever the options' positions are. So does a sliding window, which matters
    in rows that are longer than it.

    Args:
        model: A causal language model.
        columns: Number of columns of the row.
    """
    attention = attention_of(model.config)
    return not attention.alibi and (attention.window is None or columns <= attention.window)


def separate_rows(batch: dict[str, Any]) -> dict[str, Any]:
    """Turn packed rows into ordinary ones: each option behind its own copy of the prompt, padded on the left.

    Args:
        batch: A batch of :func:`~beft_lightning.data.packed_options.pack_options`.

    Returns:
        The same with a row for each option.
    """
    option_row = batch["option_row"]
    segments = batch["segment_ids"][option_row]
    first = torch.searchsorted(option_row, option_row)  # of the example's options, the place of the first
    number = torch.arange(1, len(option_row) + 1, device=option_row.device) - first
    visible = (segments == PROMPT) | (segments == number[:, None])
    columns = int(visible.sum(dim=1).max())
    # A stable sort moves what is not visible to the left, and keeps the order of the rest.
    order = visible.int().argsort(dim=1, stable=True)
    shown = visible.gather(1, order)[:, -columns:]
    rows = {name: batch[name][option_row].gather(1, order)[:, -columns:] for name in ("input_ids", "position_ids")}
    place = order.argsort(dim=1)[batch["target_option"], batch["target_column"]] - (segments.shape[1] - columns)
    return {
        **batch,
        **rows,
        "segment_ids": torch.where(shown, PROMPT, PADDING),
        "target_row": batch["target_option"],
        "target_column": place,
        "logits_to_keep": columns - int(place.min()),
    }


def option_scores(sums: Tensor, lengths: Tensor, blank_sums: Tensor | None = None) -> Tensor:
    """Return the scores by which options compare, of the shape of ``sums``.

    Args:
        sums: Log-probability of each option.
        lengths: Number of tokens of each option.
        blank_sums: With calibration, its log-probability behind the prompt without content. Then options compare by the
            difference of the sums; without, by their mean.
    """
    return sums / lengths if blank_sums is None else sums - blank_sums


def by_example(scores: Tensor, option_row: Tensor, examples: int) -> Tensor:
    """Arrange scores in a table of shape ``(examples, most options)``, with minus infinity where there is no option.

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


def classification_loss(sums: Tensor, lengths: Tensor, option_row: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy over the options' mean log-probabilities, averaged over the examples.

    Args:
        sums: Log-probability of each option.
        lengths: Number of tokens of each option.
        option_row: The example of each option.
        labels: Index of the right option of each example, shape ``(examples,)``.
    """
    return F.cross_entropy(by_example(sums / lengths, option_row, len(labels)), labels)


def language_model_loss(sums: Tensor, lengths: Tensor) -> Tensor:
    """Return the cross-entropy averaged over all option tokens of the batch, so that long options weigh more."""
    return -sums.sum() / lengths.sum()
