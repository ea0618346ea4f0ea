"""SQuAD's and DROP's metrics against cases computed by hand."""

import pytest

from beft_lightning.tasks.text_metrics import answer_em, answer_f1, drop_em, drop_f1, drop_normalise


@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "em"),
    [
        ("The Norman dynasty!", ["norman  dynasty"], 1.0, 1.0),  # case, articles, punctuation, spaces
        ("10th century", ["in the 10th and 11th centuries", "10th century"], 1.0, 1.0),  # the best of several
        ("Paris, France", ["France"], 2 / 3, 0.0),  # precision 1/2, recall 1
        ("cat cat dog", ["cat dog dog"], 2 / 3, 0.0),  # repeated words count as often as both have them
        ("blue", ["red"], 0.0, 0.0),
        ("", ["red"], 0.0, 0.0),
        ("red", ["the"], 0.0, 0.0),
        ("", [""], 0.0, 1.0),  # the official script of v1.1 counts the words that both have, and there are none
        ("the.", ["a", "red"], 0.0, 1.0),
    ],
)
def test_squad(prediction: str, answers: list[str], f1: float, em: float) -> None:
    acceptable = [(answer,) for answer in answers]
    assert answer_f1(prediction, acceptable) == pytest.approx(f1)
    assert answer_em(prediction, acceptable) == em


@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "em"),
    [
        ("5", [("5",)], 1.0, 1.0),
        ("5.0", [("5",)], 1.0, 1.0),  # one number in two forms
        ("five", [("5",)], 0.0, 0.0),
        ("5 yards", [("6 yards",)], 0.0, 0.0),  # a wrong number spoils the rest
        ("the Houston Texans", [("Texans",)], 0.67, 0.0),  # precision 1/2, recall 1, rounded as in DROP
        ("12 May 1990", [("12 May 1990",)], 1.0, 1.0),  # a date
        ("May 1990", [("12 May 1990",)], 0.8, 0.0),  # shares one of its numbers
        ("Smith", [("Smith", "Jones")], 0.5, 0.0),  # one of two spans
        ("Smith", [("Smith", "Jones"), ("Smith",)], 1.0, 1.0),  # another annotator's answer
        ("twenty-one", [("twenty one",)], 1.0, 1.0),
        ("", [("5",)], 0.0, 0.0),
    ],
)
def test_drop(prediction: str, answers: list[tuple[str, ...]], f1: float, em: float) -> None:
    assert drop_f1(prediction, answers) == pytest.approx(f1)
    assert drop_em(prediction, answers) == em


def test_drop_normalisation() -> None:
    assert drop_normalise("The 1,000-yard  Rush.") == "1000.0 yard rush"
