"""Text of several requests at once, token by token, each with its adapter and its sampling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from beft_lightning.serving.bank import AdapterBank
from beft_lightning.serving.sampling import Answer, Sampling


@dataclass(frozen=True)
class Prompt:
    """A request for text.

    Args:
        adapter: Name of the adapter; None for the base.
        tokens: The prompt.
        sampling: How to continue it.
    """

    adapter: str | None
    tokens: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Args:
        text: What is new.
        tokens: Number of tokens of the answer so far.
        finish_reason: ``stop``, ``length`` or ``failed`` if this is the last one.
    """

    text: str
    tokens: int
    finish_reason: str | None


def generate_pieces(
    bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], ends: Sequence[int]
) -> Iterator[list[Piece | None]]:
    """Continue prompts, and yield after each token what is new of every answer.

    Args:
        bank: The adapters.
        tokenizer: The base's.
        prompts: At least one.
        ends: Tokens that end an answer.

    Yields:
        For each prompt a piece, or None if its answer is complete already.
    """
    steps: SimpleQueue[list[Piece | None] | BaseException | None] = SimpleQueue()
    answers = [Answer(tokenizer, prompt.sampling, ends) for prompt in prompts]
    ids = [torch.tensor(prompt.tokens) for prompt in prompts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    device = bank.model.device

    def run() -> None:
        try:
            bank.generate(
                [prompt.adapter for prompt in prompts],
                pad_sequence(ids, batch_first=True, padding_side="left", padding_value=int(pad or 0)).to(device),
                attention_mask=pad_sequence([torch.ones_like(i) for i in ids], True, padding_side="left").to(device),
                max_new_tokens=max(prompt.sampling.max_tokens for prompt in prompts),
                do_sample=False,
                pad_token_id=int(pad or 0),
                eos_token_id=list(ends) or None,
                logits_processor=[_Choice(prompts, answers, device)],
                stopping_criteria=[_Complete(answers)],
                streamer=_Steps(answers, steps),
            )
        except BaseException as error:
            steps.put(error)
        else:
            steps.put(None)

    # The generator of transformers hands tokens to a streamer; only a thread turns that into an iterator.
    thread = Thread(target=run, daemon=True)
    thread.start()
    while (step := steps.get()) is not None:
        if isinstance(step, BaseException):
            raise step
        yield step
    thread.join()


class _Choice(LogitsProcessor):
    """Leaves each row the one token that its request chooses."""

    def __init__(self, prompts: Sequence[Prompt], answers: Sequence[Answer], device: torch.device) -> None:
        self._choices = [
            (answer, prompt.sampling, prompt.sampling.generator(device))
            for answer, prompt in zip(answers, prompts, strict=True)
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = torch.full_like(scores, float("-inf"))
        for row, (answer, sampling, generator) in enumerate(self._choices):
            if scores[row].max().isfinite():
                chosen[row, sampling.choose(scores[row], generator)] = 0
            else:  # other rows have adapters of their own, and go on
                answer.fail()
                chosen[row, 0] = 0
        return chosen


class _Complete(StoppingCriteria):
    """Ends each row when its answer is complete."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        return torch.tensor([answer.finish_reason is not None for answer in self._answers], device=input_ids.device)


class _Steps(BaseStreamer):
    """Takes the new tokens of all rows, and passes on what they add to the answers."""

    def __init__(self, answers: Sequence[Answer], steps: "SimpleQueue[Any]") -> None:
        self._answers = answers
        self._steps = steps
        self._is_prompt = True

    def put(self, value: Tensor) -> None:
        """Take the prompts, then a token of each row."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._steps.put([_piece(a, token) for a, token in zip(self._answers, value.flatten().tolist(), strict=True)])

    def end(self) -> None:
        """Do nothing: the end of generation is seen by its return."""


def _piece(answer: Answer, token: int) -> Piece | None:
    if answer.finish_reason is not None:
        return None
    text = answer.add(token)
    return Piece(text, answer.tokens, answer.finish_reason)
