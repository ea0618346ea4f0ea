"""The tasks' metrics against hand-computed cases."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, SUPER_GLUE_TASKS, Task, TaskRecord
from beft_lightning.data.metrics import SUITABLE
from beft_lightning.data.preprocessors.preprocessor import NO_LABEL
from beft_lightning.data.preprocessors.tokens import NO_TAG
from beft_lightning.errors import BeftError
from beft_lightning.tasks.metrics import METRICS, QuestionExactMatch, TaskMetrics

TASKS = [*GLUE_TASKS.values(), *SUPER_GLUE_TASKS.values(), *PROMPT_TASKS.values()]

TAG_METRICS = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
PREDICTED = torch.tensor([1, 1, 0, 0, 1, 0])
TARGET = torch.tensor([1, 0, 0, 1, 1, 0])  # 2 true positives, 1 false positive, 1 false negative, 2 true negatives


def task(kind: str, labels: int) -> TaskRecord:
    names = tuple(map(str, range(labels)))
    return Task(name="made up", kind=kind, text=("text",), labels=names, metrics=())  # type: ignore[arg-type]


def value(
    name: str, labels: int, predictions: torch.Tensor, target: torch.Tensor, kind: str = "classification"
) -> float:
    definition = METRICS[name]
    return definition.make(task(kind, labels))(*definition.arguments(predictions, {"labels": target})).item()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 4 / 6),
        ("f1", 2 * 2 / (2 * 2 + 1 + 1)),
        ("macro_f1", 2 / 3),
        ("mcc", (2 * 2 - 1 * 1) / (3 * 3 * 3 * 3) ** 0.5),
    ],
)
def test_classification_metrics(name: str, expected: float) -> None:
    assert value(name, 2, PREDICTED, TARGET) == pytest.approx(expected)


@pytest.mark.parametrize("constant", [0, 1])
def test_the_mcc_of_a_constant_prediction_is_zero(constant: int) -> None:
    predicted = torch.full((1043,), constant)
    target = torch.tensor([1] * 721 + [0] * 322)
    assert value("mcc", 2, predicted, target) == 0


def test_macro_f1_weighs_a_rare_class_like_the_others() -> None:
    """CB: classes with F1 of 1, 2/3 and 0; a class that neither occurs nor is predicted would not count."""
    predicted, target = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 2])
    assert value("macro_f1", 3, predicted, target) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_correlations() -> None:
    predicted, target = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([1.0, 2.0, 4.0, 3.0])
    assert value("spearman", 0, predicted, target, "regression") == pytest.approx(0.8)
    centred = predicted - predicted.mean(), target - target.mean()
    expected = (centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm())
    assert value("pearson", 0, predicted, target, "regression") == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("task", TASKS, ids=[f"{task.name}-{task.kind}" for task in TASKS])
def test_every_task_has_its_metrics_under_their_names(task: TaskRecord) -> None:
    assert list(TaskMetrics(task, "val_").named()) == [f"val_{name}" for name in task.metrics]


def test_metrics_of_several_labels() -> None:
    """Of 2 labels: 2 true positives, 1 false positive, 1 false negative; one example of three is all right."""
    predicted, target = torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([[1, 0], [0, 1], [1, 0]])
    assert value("micro_f1", 2, predicted, target, "multi_label") == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert value("macro_f1", 2, predicted, target, "multi_label") == pytest.approx((2 / (2 + 1 + 1) + 1) / 2)
    assert value("exact_match", 2, predicted, target, "multi_label") == pytest.approx(1 / 3)


def test_tags_count_where_words_begin() -> None:
    tagged = Task(name="tags", kind="token_classification", text=("words",), labels=("B-X", "I-X", "O"), metrics=())
    predicted, target = torch.tensor([[0, 1, 2, 0], [2, 0, 0, 2]]), torch.tensor([[0, 1, NO_TAG, 2], [2, 0, 2, NO_TAG]])
    data = {"labels": target}
    values = {
        name: METRICS[name].make(tagged)(*METRICS[name].arguments(predicted, data)).item() for name in TAG_METRICS
    }
    # Found are X at words 0 to 1 and at the last word of the first sentence, and two of one word in the second.
    assert values == pytest.approx(
        {"entity_f1": 4 / 6, "entity_precision": 2 / 4, "entity_recall": 1, "token_accuracy": 4 / 6}
    )


def test_every_name_has_a_metric() -> None:
    assert list(METRICS) == list(SUITABLE)


def test_a_task_without_metrics_cannot_be_evaluated() -> None:
    with pytest.raises(BeftError, match="no metric for classification with 2 .*: accuracy, f1, macro_f1, mcc"):
        TaskMetrics(replace(GLUE_TASKS["sst2"], metrics=()), "val_")


def batch(labels: list[list[int]], **further: Any) -> dict[str, Any]:
    """The parts of a batch that prompted metrics look at."""
    nothing: list[Any] = [[]] * len(labels)
    basic = {"id": torch.arange(len(labels)), "labels": torch.tensor(labels)}
    return {**basic, "answers": nothing, "candidates": nothing, "group": torch.zeros(len(labels)), **further}


def computed(name: str, predictions: Any, data: dict[str, Any]) -> dict[str, float]:
    metrics = TaskMetrics(PROMPT_TASKS[name], "")
    # In two parts, as two batches.
    for part in (slice(0, 1), slice(1, None)):
        metrics.update(predictions[part], {key: value[part] for key, value in data.items()})
    return {key: metric.compute().item() for key, metric in metrics.named().items()}


def test_cb_with_prompts_reports_accuracy_and_macro_f1() -> None:
    assert computed("cb", torch.tensor([0, 0, 1]), batch([[0], [2], [1]])) == pytest.approx(
        {"accuracy": 2 / 3, "macro_f1": (2 / 3 + 1 + 0) / 3}
    )


def test_multirc_judges_answers_and_whole_questions() -> None:
    data = batch([[1], [0], [1], [1]], group=torch.tensor([7, 7, 8, 9]))
    # Answers: 2 true positives, 1 false negative, no false positive; question 8 is wrong.
    expected = {"accuracy": 3 / 4, "f1a": 2 * 2 / (2 * 2 + 0 + 1), "em": 2 / 3}
    assert computed("multirc", torch.tensor([1, 0, 0, 1]), data) == pytest.approx(expected)


def test_record_accepts_any_right_entity_and_compares_texts() -> None:
    data = batch(
        [[0, 2], [1, NO_LABEL]],
        candidates=[["Ada Lovelace", "Babbage", "ada lovelace."], ["Mary", "Mary Somerville"]],
        answers=[[["Ada Lovelace"], ["Ada"]], [["Mary Somerville"]]],
    )
    expected = {"accuracy": 1 / 2, "answer_f1": (1 + 2 / 3) / 2, "answer_em": 1 / 2}
    assert computed("record", torch.tensor([2, 0]), data) == pytest.approx(expected)


def test_drop_reports_both_metrics_of_generated_texts() -> None:
    data = batch([[0], [0]], answers=[[["3"]], [["red car", "blue car"]]])
    expected = {"answer_f1": 1.0, "drop_f1": (1 + 0.5) / 2, "drop_em": 1 / 2}
    assert computed("drop", ["3", "red car"], data) == pytest.approx(expected)


def test_question_exact_match_over_several_updates() -> None:
    metric = QuestionExactMatch()
    metric.update(torch.tensor([1.0, 1.0]), torch.tensor([0, 1]))
    metric.update(torch.tensor([0.0]), torch.tensor([1]))
    assert metric.compute().item() == 0.5
