"""Prompts and their options as token ids: where an option begins, what options share, how they are packed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from beft_lightning.errors import DataError

#: Segment number of padding and of the prompt; options count from 1.
PADDING, PROMPT = -1, 0


@dataclass(frozen=True)
class EncodedOptions:
    """A prompt and its options, as token ids.

    Args:
        prompt: The tokens that all options share, special ones included.
        options: What follows the prompt, for each option.
        unscored: For each option, how many of its first tokens still belong to the prompt's text: none, unless a
            tokenizer merges the end of the prompt with the beginning of an option.
        truncated: How many of the prompt's tokens were cut off at its beginning.
    """

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    unscored: tuple[int, ...]
    truncated: int = 0

    @property
    def length(self) -> int:
        """Tokens that have to be run: the prompt, and each option less its last token, which predicts nothing."""
        return len(self.prompt) + sum(len(option) - 1 for option in self.options)


def encode_options(
    tokenizer: PreTrainedTokenizerBase, prompt: str, options: Sequence[str], max_length: int
) -> EncodedOptions:
    """Tokenise a prompt with each of its options.

    The text is tokenised as a whole, and an option begins with the first token that reaches beyond the prompt's
    last character, as told by the tokenizer's offsets. If prompt and longest option exceed ``max_length``, the
    prompt loses its beginning, but keeps a leading special token.

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
    shared = _common_prefix(rows, min(starts))
    segments = [row[shared:] for row in rows]
    room = max_length - max(map(len, segments))
    if room < 1:
        longest = max(zip(segments, options, strict=True), key=lambda pair: len(pair[0]))[1]
        raise DataError(
            f"option {_shorten(longest)!r} leaves no room for its prompt within {max_length} tokens: raise max_length."
        )
    prefix = rows[0][:shared]
    cut = max(0, shared - room)
    if cut:
        kept = prefix[:1] if prefix[0] in special and room > 1 else []
        prefix = [*kept, *prefix[shared - room + len(kept) :]]
    unscored = tuple(start - shared for start in starts)
    return EncodedOptions(tuple(prefix), tuple(map(tuple, segments)), unscored, cut)


def pack_options(examples: Sequence[EncodedOptions], pad_token: int) -> dict[str, Tensor]:
    """One row for each example: its prompt, right-aligned, then its options side by side.

    All rows' prompts end in the same column, so that everything an option needs from the model lies in the columns
    from there on. An option's last token predicts nothing and is left out, so options of one token need no column.

    Args:
        examples: The encoded examples of a batch.
        pad_token: Id to fill up with.

    Returns:
        ``input_ids``, ``segment_ids`` and ``position_ids`` of shape ``(batch, columns)``; ``prompt_columns``, a
        scalar; for each scored token ``target_row``, ``target_column`` (which predicts it), ``target_token`` and
        ``target_option``; and ``option_row``, the row of each option.
    """
    prompt_columns = max(len(example.prompt) for example in examples)
    columns = prompt_columns + max(example.length - len(example.prompt) for example in examples)
    shape = (len(examples), columns)
    input_ids = torch.full(shape, pad_token)
    segment_ids = torch.full(shape, PADDING)
    position_ids = torch.zeros(shape, dtype=torch.long)
    targets: list[tuple[int, int, int, int]] = []
    option_row: list[int] = []
    for row, example in enumerate(examples):
        length = len(example.prompt)
        begin = prompt_columns - length
        input_ids[row, begin:prompt_columns] = torch.tensor(example.prompt)
        segment_ids[row, begin:prompt_columns] = PROMPT
        position_ids[row, begin:prompt_columns] = torch.arange(length)
        column = prompt_columns
        for number, (option, unscored) in enumerate(zip(example.options, example.unscored, strict=True), start=1):
            for place, token in enumerate(option):
                if place >= unscored:
                    predictor = prompt_columns - 1 if place == 0 else column + place - 1
                    targets.append((row, predictor, token, len(option_row)))
            inputs = len(option) - 1
            input_ids[row, column : column + inputs] = torch.tensor(option[:-1], dtype=torch.long)
            segment_ids[row, column : column + inputs] = number
            position_ids[row, column : column + inputs] = torch.arange(length, length + inputs)
            column += inputs
            option_row.append(row)
    names = ("target_row", "target_column", "target_token", "target_option")
    return {
        "input_ids": input_ids,
        "segment_ids": segment_ids,
        "position_ids": position_ids,
        "prompt_columns": torch.tensor(prompt_columns),
        "option_row": torch.tensor(option_row),
        **dict(zip(names, torch.tensor(targets).unbind(1), strict=True)),
    }


def _common_prefix(rows: Sequence[Sequence[int]], longest: int) -> int:
    """Number of first tokens that all rows share, at most ``longest`` and at least the first one."""
    return next((i for i in range(longest) if len({row[i] for row in rows}) > 1), longest)


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before a text that begins with an option: a model can only predict what follows something."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise DataError("an empty prompt needs a tokenizer with a bos or eos token, and this one has neither.")
    return int(token)


def _shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else f"...{text[-width:]}"
