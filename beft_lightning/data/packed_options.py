"""Prompts and their options as token ids, packed so that options share their prompt."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from beft_lightning.errors import DataError

#: Segment number of padding and of the prompt; options count from 1.
PADDING, PROMPT = -1, 0


@dataclass(frozen=True)
class EncodedOptions:
    """A prompt and its options as token ids: the row of an option is the shared tokens, then its own.

    Args:
        shared: The tokens that all rows begin with: the prompt, special tokens included, and the words that all
            options begin with.
        own: The further tokens of each row; at least one for each option. None where there is only a prompt.
        starts: For each row, the place of its first scored token, at least 1. It lies behind what is shared only
            where a tokenizer merges the end of the prompt with the beginning of another option.
        truncated: Number of the prompt's tokens that were cut off at its beginning.
    """

    shared: tuple[int, ...]
    own: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    truncated: int = 0

    @property
    def length(self) -> int:
        """Number of tokens to run: the shared ones, and each row's own less its last, which predicts nothing."""
        return len(self.shared) + sum(len(own) - 1 for own in self.own)

    @property
    def positions(self) -> int:
        """Number of positions that these need: those of the longest row, less its last."""
        return len(self.shared) + max(map(len, self.own)) - 1

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens on which no option is scored."""
        return self.shared[: min(self.starts, default=len(self.shared))]

    def row(self, option: int) -> tuple[int, ...]:
        """Return all tokens of the prompt with one option."""
        return (*self.shared, *self.own[option])

    def only(self, option: int) -> "EncodedOptions":
        """Return the prompt with one option alone."""
        row = self.row(option)
        return EncodedOptions(row[:-1], (row[-1:],), (self.starts[option],), self.truncated)

    def halves(self) -> "list[EncodedOptions]":
        """Return the prompt with the first half of its options, and with the others."""
        middle = len(self.own) // 2
        return [
            replace(self, own=self.own[part], starts=self.starts[part]) for part in (slice(middle), slice(middle, None))
        ]

    def ended(self, token: int) -> "EncodedOptions":
        """Return the same with a token more at the end of each option."""
        return replace(self, own=tuple((*own, token) for own in self.own))


def encode_options(
    tokenizer: PreTrainedTokenizerBase, prompt: str, options: Sequence[str], max_length: int
) -> EncodedOptions:
    """Tokenise a prompt with each of its options.

    The text is tokenised as a whole, and an option begins with the first token that reaches beyond the prompt's
    last character, as told by the tokenizer's offsets. If prompt and longest option exceed ``max_length``, the
    prompt loses its beginning, but keeps a leading special token. Words that all options begin with are run once.

    Args:
        tokenizer: A fast tokenizer.
        prompt: The text before the options; may be empty.
        options: The options' texts, with the white space that separates them from the prompt.
        max_length: Most tokens of prompt and one option together.

    Raises:
        DataError: If there is no option, an option has no token of its own, or is longer than the window.
    """
    if not options:
        raise DataError(f"the prompt {_shorten(prompt)!r} has no options.")
    encoded = tokenizer([prompt + option for option in options], return_offsets_mapping=True)
    special = set(tokenizer.all_special_ids)
    rows, starts = [], []
    for option, ids, offsets in zip(options, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        start = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
        # A special token at the end, such as </s>, belongs to no option.
        row = [token for i, token in enumerate(ids) if i < start or offsets[i] != (0, 0) or token not in special]
        if start == len(row):
            raise DataError(f"option {option!r} of the prompt {_shorten(prompt)!r} has no token of its own.")
        rows.append(row)
        starts.append(start)
    if min(starts) == 0:
        rows = [[_first_token(tokenizer), *row] for row in rows]
        starts = [start + 1 for start in starts]
    # Not the whole of the shortest row: each option needs a token of its own.
    common = _common_prefix(rows, min(map(len, rows)) - 1)
    cut = max(0, max(map(len, rows)) - max_length)
    if cut >= min(starts):
        longest = max(zip(rows, options, strict=True), key=lambda pair: len(pair[0]))[1]
        raise DataError(
            f"option {_shorten(longest)!r} leaves no room for its prompt within {max_length} tokens: raise max_length."
        )
    own = tuple(tuple(row[common:]) for row in rows)
    shared = without_beginning(rows[0][:common], cut, special)
    return EncodedOptions(shared, own, tuple(start - cut for start in starts), cut)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, max_length: int) -> EncodedOptions:
    """Tokenise a prompt alone, as :func:`encode_options` does before an option.

    Args:
        tokenizer: A fast tokenizer.
        prompt: The text; may be empty.
        max_length: Most tokens.
    """
    ids = plain_tokens(tokenizer, prompt) or [_first_token(tokenizer)]
    cut = max(0, len(ids) - max_length)
    return EncodedOptions(without_beginning(ids, cut, set(tokenizer.all_special_ids)), (), (), cut)


def plain_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text, with special tokens before it but without those, such as </s>, behind it."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    special = set(tokenizer.all_special_ids)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    start = next((i for i, (_, end) in enumerate(offsets) if end > 0), 1)
    return [token for i, token in enumerate(ids) if i < start or offsets[i] != (0, 0) or token not in special]


def without_beginning(ids: Sequence[int], cut: int, special: Container[int]) -> tuple[int, ...]:
    """Return tokens without ``cut`` of the first; a special token that begins them is kept."""
    kept = ids[:1] if cut and ids[0] in special else []
    return (*kept, *ids[cut + len(kept) :])


def pack_options(examples: Sequence[EncodedOptions], pad_token: int) -> dict[str, Any]:
    """Pack each example into a row: the tokens its options share, then their own side by side, padded on the left.

    The last token of an option predicts nothing and is left out, so options of one token need no column.

    Args:
        examples: The encoded examples of a batch.
        pad_token: Id to fill up with.

    Returns:
        ``input_ids``, ``segment_ids`` and ``position_ids`` of shape ``(batch, columns)``; for each scored token
        ``target_row``, ``target_column`` (which predicts it), ``target_token`` and ``target_option``;
        ``option_row``, the row of each option; and ``logits_to_keep``, the number of last columns that predict.
    """
    columns = max(example.length for example in examples)
    rows: list[tuple[list[int], list[int], list[int]]] = []
    targets: list[tuple[int, int, int, int]] = []
    option_row: list[int] = []
    for row, example in enumerate(examples):
        padding, common = columns - example.length, len(example.shared)
        ids = [pad_token] * padding + list(example.shared)
        segments = [PADDING] * padding + [PROMPT] * common
        positions = [0] * padding + list(range(common))
        for option, (own, start) in enumerate(zip(example.own, example.starts, strict=True)):
            for place, token in enumerate(example.row(option)[start:], start=start):
                # The shared part ends with the column before the option's own, wherever those are.
                predictor = padding + place - 1 if place <= common else len(ids) + place - common - 1
                targets.append((row, predictor, token, len(option_row)))
            ids += own[:-1]
            segments += [option + 1] * (len(own) - 1)
            positions += range(common, common + len(own) - 1)
            option_row.append(row)
        rows.append((ids, segments, positions))
    names = ("input_ids", "segment_ids", "position_ids")
    target_names = ("target_row", "target_column", "target_token", "target_option")
    return {
        **dict(zip(names, torch.tensor(rows).unbind(1), strict=True)),
        **dict(zip(target_names, torch.tensor(targets).unbind(1), strict=True)),
        "option_row": torch.tensor(option_row),
        "logits_to_keep": columns - min(column for _, column, _, _ in targets),
    }


def _common_prefix(rows: Sequence[Sequence[int]], longest: int) -> int:
    """Return the number of first tokens that all rows share, at most ``longest``."""
    return next((i for i in range(longest) if len({row[i] for row in rows}) > 1), longest)


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token before a text that begins with an option: a model can only predict what follows something."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise DataError("an empty prompt needs a tokenizer with a bos or eos token, and this one has neither.")
    return int(token)


def _shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else f"...{text[-width:]}"
