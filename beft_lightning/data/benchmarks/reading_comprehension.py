"""Reading comprehension by generation: SQuAD v1.1 and DROP."""

from beft_lightning.data.benchmarks.datamodule import BenchmarkDataModule
from beft_lightning.data.benchmarks.prompts import PROMPT_TASKS

_SQUAD = {"squad": PROMPT_TASKS["squad"]}
_DROP = {"drop": PROMPT_TASKS["drop"]}


class Squad(BenchmarkDataModule):
    """SQuAD v1.1 (Rajpurkar et al. 2016, arXiv 1606.05250), from its original JSON files or from the hub."""

    prompt_tasks = _SQUAD
    folder = "squad"
    suffix = ".json"


class Drop(BenchmarkDataModule):
    """DROP (Dua et al. 2019, arXiv 1903.00161), from its original JSON files or from the hub."""

    prompt_tasks = _DROP
    folder = "drop"
    suffix = ".json"
