"""How answers are generated: their length, their end, and options of transformers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from transformers import GenerationConfig, PreTrainedTokenizerBase

from beft_lightning.errors import DataError

#: What ends an answer: its line, or the tokenizer's end-of-text token, which is appended to the answers to learn.
Stop = Literal["line", "end_of_text"]
#: Options of transformers that other options stand for, or that the answers' form does not allow.
_OWN = {
    "max_new_tokens": "it has an option of its own",
    "max_length": "set max_new_tokens",
    "eos_token_id": "set stop",
    "pad_token_id": "it is the tokenizer's",
    "num_return_sequences": "each prompt has one answer",
    "stop_strings": "set stop",
    "return_dict_in_generate": "only texts are kept",
}
#: Options that are whole numbers -> the least. Transformers checks them only where it generates, or not at all.
_LEAST = {"num_beams": 1, "top_k": 0, "no_repeat_ngram_size": 0, "min_new_tokens": 0}


@dataclass(frozen=True)
class Generation:
    """How an answer is generated.

    Args:
        max_new_tokens: Most tokens of an answer; they count towards ``max_length``. The published runs use 50.
        stop: ``line`` ends an answer with its first line, as the published runs do; ``end_of_text`` with the
            tokenizer's end-of-text token.
        options: Further options of transformers' ``generate``, such as ``num_beams``; without, an answer is greedy.

    Raises:
        DataError: If a value or an option is not valid.
    """

    max_new_tokens: int = 50
    stop: Stop = "line"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise DataError(f"max_new_tokens is {self.max_new_tokens}: it must be at least 1.")
        if self.stop not in ("line", "end_of_text"):
            raise DataError(f"stop {self.stop!r} is unknown; choose one of: line, end_of_text.")
        if own := [name for name in self.options if name in _OWN]:
            raise DataError(f"generate: {own[0]!r} cannot be set: {_OWN[own[0]]}.")
        try:
            unknown = GenerationConfig().update(**self.options)
        except (ValueError, TypeError) as error:
            raise DataError(f"generate: {error}") from error
        if unknown:
            raise DataError(
                f"generate: {next(iter(unknown))!r} is no option of transformers' GenerationConfig; options are, for "
                "example, num_beams, repetition_penalty and do_sample."
            )
        for name in _LEAST.keys() & self.options.keys():
            value = self.options[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < _LEAST[name]:
                raise DataError(f"generate: {name} is {value!r}: it must be a whole number from {_LEAST[name]} on.")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in plain types."""
        return asdict(self)

    def room(self, max_length: int) -> int:
        """Return the number of tokens that generation leaves free.

        Args:
            max_length: Most tokens of prompt and answer together.

        Raises:
            DataError: If none are.
        """
        if self.max_new_tokens >= max_length:
            raise DataError(
                f"max_new_tokens {self.max_new_tokens} leaves no room for a prompt within max_length {max_length}: "
                "raise max_length, or lower max_new_tokens."
            )
        return max_length - self.max_new_tokens


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a text.

    Raises:
        DataError: If the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no eos token to end a text with: set one in its tokenizer_config.json.")
    return int(tokenizer.eos_token_id)
