"""Entities in sequences of tags."""

import pytest
import torch

from beft_lightning.tasks.entities import Entity, EntityScore, entities


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", set()),
        ("B-X I-X O B-X", {("X", 0, 2), ("X", 3, 4)}),
        ("B-X B-X I-X", {("X", 0, 1), ("X", 1, 3)}),
        ("B-X I-Y", {("X", 0, 1), ("Y", 1, 2)}),
        ("O I-X I-X", {("X", 1, 3)}),
        ("S-X B-Y I-Y E-Y E-X", {("X", 0, 1), ("Y", 1, 4), ("X", 4, 5)}),
        ("B-X-Z I-X-Z", {("X-Z", 0, 2)}),
    ],
)
def test_entities_of_tags(tags: str, found: set[Entity]) -> None:
    assert entities(tags.split()) == found


def test_scores_count_whole_entities_over_all_sentences() -> None:
    tags = ["B-X", "I-X", "B-Y", "I-Y", "O"]
    known = [[0, 1, 4, 2], [4, 2, 3, 0]]
    predicted = [[0, 1, 4, 0], [4, 2, 4, 4]]  # the first is right, one of another type, one too short
    expected = {"precision": 1 / 3, "recall": 1 / 4, "f1": 2 / 7}
    for name, value in expected.items():
        metric = EntityScore(tags, name)  # type: ignore[arg-type]
        for sentence in (0, 1):
            metric.update(predicted[sentence : sentence + 1], known[sentence : sentence + 1])
        assert metric.compute().item() == pytest.approx(value)


def test_a_score_without_entities_is_zero() -> None:
    metric = EntityScore(["B-X", "O"], "precision")
    metric.update([[1, 1]], [[1, 0]])
    assert torch.equal(metric.compute(), torch.tensor(0.0))
