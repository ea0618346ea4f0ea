"""How one request wants its tokens chosen, and the text they have made so far."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

#: What a decoder shows for the bytes of a character that is not complete yet.
_INCOMPLETE = "\ufffd"
#: Below this temperature only the most probable token has a probability, and fp32 cannot divide by every number.
_COLD = 1e-6
#: Why an answer has ended for which no token could be chosen.
FAILED = "failed"


@dataclass(frozen=True)
class Sampling:
    """Options of a request for text.

    Args:
        max_tokens: Most tokens to generate.
        temperature: 0 takes the most probable token.
        top_p: Sample from the most probable tokens that have this probability together.
        seed: Makes sampling repeatable.
        stop: Texts that end the answer; they are not part of it.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the source of this request's random numbers."""
        generator = torch.Generator(device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator

    def choose(self, logits: Tensor, generator: torch.Generator) -> int:
        """Return the next token.

        Args:
            logits: Scores of all tokens, shape ``(vocabulary,)``.
            generator: The request's :meth:`generator`.
        """
        if self.temperature < _COLD:
            return int(logits.argmax())
        probabilities, order = (logits.float() / self.temperature).softmax(dim=-1).sort(descending=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities[1:][before[1:] >= self.top_p] = 0  # the most probable stays, however small top_p is
        return int(order[torch.multinomial(probabilities, 1, generator=generator)])


class Answer:
    """The text of an answer as it grows.

    Args:
        tokenizer: Turns tokens into text.
        sampling: Says when it ends.
        ends: Tokens that end it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._ends = frozenset(ends)
        self._tokens: list[int] = []
        self._shown = 0
        self._failed = False
        #: Why it has ended: ``stop`` or ``length``, as OpenAI names it, or :data:`FAILED`; None until then.
        self.finish_reason: str | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens generated."""
        return len(self._tokens)

    def fail(self) -> None:
        """Let it end with the next token, whatever that is."""
        self._failed = True

    def add(self, token: int) -> str:
        """Add a token; return the text that is certain to belong to the answer now."""
        if self._failed:
            self.finish_reason = FAILED
            return ""
        text = str(self._tokenizer.decode([*self._tokens, token], skip_special_tokens=True))
        self._tokens.append(token)
        found = [place for stop in self._sampling.stop if (place := text.find(stop)) >= 0]
        if found:
            text, self.finish_reason = text[: min(found)], "stop"
        elif token in self._ends:
            self.finish_reason = "stop"
        elif len(self._tokens) >= self._sampling.max_tokens:
            self.finish_reason = "length"
        certain = len(text) if self.finish_reason else len(text) - self._uncertain(text)
        new, self._shown = text[self._shown : certain], max(self._shown, certain)
        return new

    def _uncertain(self, text: str) -> int:
        """Return how many characters at the end may still turn into another one, or into a stop text."""
        if text.endswith(_INCOMPLETE):
            return len(text) - len(text.rstrip(_INCOMPLETE))
        begun = [n for stop in self._sampling.stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max(begun, default=0)
