"""Every kind of table: the callback scores and selects, and the checkpoint alone restores the predictions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback, LanguageTaskModule
from beft_lightning.checkpoint import MODEL_KEY, read_checkpoint
from beft_lightning.data import Table
from beft_lightning.data.table.kinds import KINDS
from beft_lightning.data.task_records import task_from_dict
from beft_lightning.export.loading import load_trained
from beft_lightning.export.merging import merge
from beft_lightning.models import load_tokenizer
from beft_lightning.tasks.objectives import make_objective
from tests.chats import conversation
from tests.tiny import sentences

MADE = sentences(24)
TEXTS, GOOD = [text for text, _ in MADE], [label for _, label in MADE]
TAGGED = [["B-PRAISE" if word in ("good", "great", "fine") else "O" for word in text.split()] for text in TEXTS]
#: Name of a case -> the columns of its table, the options, the metrics, and a column that a prediction adds.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str], str]] = {
    "classification": ({"text": TEXTS, "label": GOOD}, {}, {"accuracy", "macro_f1"}, "label"),
    "regression": ({"text": TEXTS, "label": [y + 0.5 for y in GOOD]}, {}, {"pearson", "spearman"}, "score"),
    "multi_label": (
        {"text": TEXTS, "label": [["good"] * y + ["long"] * ("a" in t) for t, y in MADE]},
        {},
        {"micro_f1", "macro_f1", "exact_match"},
        "labels",
    ),
    "token_classification": (
        {"tokens": [text.split() for text in TEXTS], "tags": TAGGED},
        {"text": "tokens", "label": "tags"},
        {"entity_f1", "entity_precision", "entity_recall", "token_accuracy"},
        "tags",
    ),
    "multiple_choice": (
        {"text": TEXTS, "a": ["bad"] * 24, "b": ["good"] * 24, "label": GOOD},
        {"options": "a,b"},
        {"accuracy"},
        "label",
    ),
    "multiple_choice of a list": (
        {"text": TEXTS, "choices": [["bad", "good"] + ["dull"] * (i % 2) for i in range(24)], "label": GOOD},
        {"options": "choices"},
        {"accuracy"},
        "label",
    ),
    "classification with a prompt": (
        {"film": TEXTS, "label": ["good" if y else "bad" for y in GOOD]},
        {"prompt": "{film} was"},
        {"accuracy"},
        "label",
    ),
    "multiple_choice with a prompt": (
        {"film": TEXTS, "choices": [["bad", "good"] + ["dull"] * (i % 2) for i in range(24)], "label": GOOD},
        {"prompt": "{film} was", "options": "choices"},
        {"accuracy"},
        "label",
    ),
    "generation": (
        {"film": TEXTS, "verdict": ["good\nfilm" if y else "bad" for y in GOOD]},
        {"prompt": "{film}:", "answer": "verdict", "max_new_tokens": 4},
        {"answer_f1", "answer_em"},
        "text",
    ),
    "chat": (
        {"messages": [conversation("film", text, "plot", "good" if y else "bad") for text, y in MADE]},
        {"messages": "messages", "max_new_tokens": 4},
        {"answer_f1", "answer_em"},
        "text",
    ),
    "text": ({"text": TEXTS}, {"kind": "text"}, {"perplexity"}, "perplexity"),
}
#: The cases for causal language models.
CAUSAL = {case for case, (_, options, _, _) in CASES.items() if {"prompt", "messages", "kind"} & {*options}}


def test_every_kind_is_tested() -> None:
    assert set(KINDS) <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_kind_scores_selects_fits_and_is_restored(
    case: str, backbone: str, chat_backbone: str, make_trainer: Any, tmp_path: Path
) -> None:
    backbone = chat_backbone if case in CAUSAL else backbone
    columns, options, metrics, added = CASES[case]
    Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    data = Table(backbone, tmp_path / "train.parquet", batch_size=4, dev_share=8, seed=0, **options)
    assert data.kind.name == case.partition(" ")[0]
    module = LanguageTaskModule(backbone, data.task, learning_rate=0.01)
    selection = BiasSelectionCallback(batches=2)
    trainer = make_trainer(callbacks=[selection, AdapterCheckpoint()])
    trainer.fit(module, datamodule=data)
    assert selection.scores is not None
    assert selection.scores.terms["value"].score > 0
    assert selection.selected is not None
    # A choice may have several right options, so that it has no loss.
    logged = metrics | (set() if data.task.kind == "choice" else {"loss"})
    assert {f"val_{name}" for name in logged} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "last.ckpt")

    assert module.objective is not None
    assert module.model is not None
    batch = next(iter(data.val_dataloader()[0]))
    with torch.no_grad():
        expected = module.objective.rows(module.model.eval(), batch)
    record, model, trained = load_trained(tmp_path / "last.ckpt")
    merge(model, trained)
    restored = make_objective(task_from_dict(record["task"], []), lambda: load_tokenizer(backbone))
    unlabelled = {name: value for name, value in batch.items() if name not in ("labels", "learnt", "answers")}
    with torch.no_grad():
        assert restored.rows(model, unlabelled) == expected
    assert added in expected[0]
    # A row of texts holds several.
    assert len(expected) == (8 if case == "text" else len(batch["id"]))
    assert read_checkpoint(tmp_path / "last.ckpt")[MODEL_KEY]["labels"] == list(module.objective.output_names)
