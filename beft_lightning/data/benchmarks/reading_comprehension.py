"""Reading comprehension by generation: SQuAD v1.1 and DROP."""

from typing import Any

from beft_lightning.data.benchmarks.datamodule import BenchmarkDataModule
from beft_lightning.data.benchmarks.prompts import PROMPT_TASKS
from beft_lightning.data.generation import Stop
from beft_lightning.data.generation_options import with_generation

_SQUAD = {"squad": PROMPT_TASKS["squad"]}
_DROP = {"drop": PROMPT_TASKS["drop"]}


class ReadingComprehension(BenchmarkDataModule):
    """Questions whose answers are generated.

    Args:
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        max_new_tokens: Most tokens of a generated answer; by default 50, as in the published runs.
        stop: What ends a generated answer: ``line``, the default, or ``end_of_text``.
        generate: Further options of transformers' ``generate``, such as ``{"num_beams": 4}``; by default an answer is
            greedy.
        kwargs: See :class:`~beft_lightning.data.benchmarks.datamodule.BenchmarkDataModule`.
    """

    def __init__(
        self,
        tokenizer: str,
        max_new_tokens: int | None = None,
        stop: Stop | None = None,
        generate: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer=tokenizer, **kwargs)
        self.task = with_generation(self.task, max_new_tokens, stop, generate)


class Squad(ReadingComprehension):
    """SQuAD v1.1 (Rajpurkar et al. 2016, arXiv 1606.05250), from its original JSON files or from the hub."""

    prompt_tasks = _SQUAD
    folder = "squad"
    suffix = ".json"


class Drop(ReadingComprehension):
    """DROP (Dua et al. 2019, arXiv 1903.00161), from its original JSON files or from the hub."""

    prompt_tasks = _DROP
    folder = "drop"
    suffix = ".json"
