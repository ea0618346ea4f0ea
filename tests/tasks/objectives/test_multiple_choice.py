"""Encoders that choose."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from beft_lightning.data import SUPER_GLUE_TASKS
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.multiple_choice import MultipleChoicePreprocessor
from beft_lightning.models import load_model, load_tokenizer
from beft_lightning.tasks.objectives.multiple_choice import MultipleChoiceObjective

COPA = SUPER_GLUE_TASKS["copa"]


def test_each_choice_is_scored_as_if_alone(backbone: str) -> None:
    objective = MultipleChoiceObjective(COPA)
    model: Any = load_model(objective.auto_class, backbone, **objective.config).eval()
    preprocessor = MultipleChoicePreprocessor(COPA, load_tokenizer(backbone), EncodingOptions(32))
    row = {"premise": "the film", "question": "was", "choice1": "good", "choice2": "very very bad", "label": 1, "id": 0}
    with torch.no_grad():
        batch = preprocessor.collate_evaluation(preprocessor.encode([row]))
        logits = objective.logits(model, batch)
        swapped = preprocessor.encode([{**row, "choice1": row["choice2"], "choice2": row["choice1"]}])
        torch.testing.assert_close(objective.logits(model, preprocessor.collate_evaluation(swapped)), logits.flip(1))
        predictions, loss = objective.evaluate(model, batch)
        (answer,) = objective.rows(model, batch)
    assert predictions.tolist() == logits.argmax(dim=1).tolist()
    assert answer["label"] == COPA.labels[int(logits.argmax())]
    assert list(answer["probabilities"].values()) == pytest.approx(logits[0].softmax(dim=0).tolist())
    assert loss is not None
    torch.testing.assert_close(loss, -logits.log_softmax(dim=1)[0, 1])
    assert objective.decode(torch.tensor([1]), batch) == ["choice2"]
    assert objective.output_names == ()


def test_a_row_of_fewer_choices_is_scored_as_if_alone(backbone: str) -> None:
    task = replace(COPA, text=("premise",), labels=(), options="choices")
    objective = MultipleChoiceObjective(task)
    model: Any = load_model(objective.auto_class, backbone, **objective.config).eval()
    preprocessor = MultipleChoicePreprocessor(task, load_tokenizer(backbone), EncodingOptions(32))
    choices = [["good", "bad", "very dull"], ["a film", "not"]]
    features = preprocessor.encode([{"premise": "it was", "choices": c, "id": i} for i, c in enumerate(choices)])
    with torch.no_grad():
        together = objective.rows(model, preprocessor.collate_evaluation(features))
        alone = [objective.rows(model, preprocessor.collate_evaluation([feature]))[0] for feature in features]
    for row, other, names in zip(together, alone, choices, strict=True):
        assert list(row["probabilities"]) == names
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
