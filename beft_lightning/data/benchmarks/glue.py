"""The nine tasks of GLUE (Wang et al. 2018, arXiv 1804.07461)."""

from collections.abc import Mapping

from beft_lightning.data.benchmarks.datamodule import BenchmarkDataModule
from beft_lightning.data.benchmarks.prompts import PROMPT_TASKS
from beft_lightning.data.task import Task

_HUB = "nyu-mll/glue"
_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

#: Regimes, learning rates and epochs are those of the published runs on BERT-base.
GLUE_TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="cola",
            kind="classification",
            text=("sentence",),
            labels=("unacceptable", "acceptable"),
            metrics=("mcc",),
            learning_rate=7e-4,
            epochs=16,
            sizes={"low": 1710, "medium": 3420, "high": 4275},
            hub=(_HUB, "cola"),
            header=("source", "label", "author_mark", "sentence"),
        ),
        Task(
            name="mnli",
            kind="classification",
            text=("premise", "hypothesis"),
            labels=("entailment", "neutral", "contradiction"),
            metrics=("accuracy",),
            learning_rate=1e-4,
            epochs=30,
            sizes={"low": 1000, "medium": 5000, "high": 9000},
            evaluation_splits=("validation_matched", "validation_mismatched"),
            hub=(_HUB, "mnli"),
            columns={"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
        ),
        Task(
            name="mrpc",
            kind="classification",
            text=_PAIR,
            labels=("not_equivalent", "equivalent"),
            metrics=("accuracy", "f1"),
            learning_rate=7e-4,
            epochs=60,
            sizes={"low": 367, "medium": 1191, "high": 1835},
            hub=(_HUB, "mrpc"),
            columns={"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
        ),
        Task(
            name="qnli",
            kind="classification",
            text=("question", "sentence"),
            labels=_ENTAILMENT,
            metrics=("accuracy",),
            learning_rate=1e-4,
            epochs=30,
            sizes={"low": 1000, "medium": 5000, "high": 9000},
            hub=(_HUB, "qnli"),
        ),
        Task(
            name="qqp",
            kind="classification",
            text=("question1", "question2"),
            labels=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            learning_rate=4e-4,
            epochs=30,
            sizes={"low": 1000, "medium": 5000, "high": 9000},
            hub=(_HUB, "qqp"),
            columns={"is_duplicate": "label"},
        ),
        Task(
            name="rte",
            kind="classification",
            text=_PAIR,
            labels=_ENTAILMENT,
            metrics=("accuracy",),
            learning_rate=1e-3,
            epochs=30,
            sizes={"low": 300, "medium": 900, "high": 1200},
            hub=(_HUB, "rte"),
        ),
        Task(
            name="sst2",
            kind="classification",
            text=("sentence",),
            labels=("negative", "positive"),
            metrics=("accuracy",),
            learning_rate=4e-4,
            epochs=16,
            sizes={"low": 1000, "medium": 5000, "high": 11000},
            hub=(_HUB, "sst2"),
        ),
        Task(
            name="stsb",
            kind="regression",
            text=_PAIR,
            metrics=("spearman", "pearson"),
            learning_rate=1e-4,
            epochs=60,
            sizes={"low": 287, "medium": 1150, "high": 2300},
            hub=(_HUB, "stsb"),
            columns={"score": "label"},
        ),
        # The published tables have no entry for WNLI; the learning rate and epochs are RTE's, its closest relative.
        Task(
            name="wnli",
            kind="classification",
            text=_PAIR,
            labels=("not_entailment", "entailment"),
            metrics=("accuracy",),
            learning_rate=1e-3,
            epochs=30,
            hub=(_HUB, "wnli"),
        ),
    )
}

_PROMPTED = {"sst2": PROMPT_TASKS["sst2"]}


class Glue(BenchmarkDataModule):
    """A task of GLUE, from its original TSV files or from the hub."""

    tasks = GLUE_TASKS
    prompt_tasks = _PROMPTED
    folder = "glue"
    suffix = ".tsv"
