"""The eleven prompted tasks: their wording to the letter, and their real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.data import PROMPT_TASKS, Drop, Glue, Prompted, Squad, SuperGlue
from beft_lightning.errors import DataError

CLASSES: dict[str, Any] = {"squad": Squad, "drop": Drop, "sst2": Glue}


def prompted(task: str, row: dict[str, Any]) -> list[Prompted]:
    record = PROMPT_TASKS[task]
    return [example for flat in record.flatten(row) for example in record.examples(flat)]


@pytest.mark.parametrize(
    ("task", "row", "prompt", "options", "label", "calibration"),
    [
        (
            "sst2",
            {"sentence": "a fine film ", "label": "1"},
            "a fine film It was",
            (" terrible", " great"),
            1,
            "It was",
        ),
        (
            "rte",
            {"premise": "It rains.", "hypothesis": "It is wet.", "label": "not_entailment"},
            'It rains.\nDoes this mean that "It is wet." is true? Yes or No?\n',
            ("Yes", "No"),
            1,
            "",
        ),
        (
            "cb",
            {"premise": "It rains.", "hypothesis": "it is wet", "label": "neutral"},
            'Suppose It rains. Can we infer that "it is wet"? Yes, No, or Maybe?\n',
            ("Yes", "No", "Maybe"),
            2,
            "",
        ),
        (
            "boolq",
            {"passage": "Rain -- Rain is wet.", "question": "is rain wet", "label": True},
            "Rain -- Rain is wet. Is rain wet?\n",
            ("No", "Yes"),
            1,
            "",
        ),
        (
            "wsc",
            {"text": "Ann met Bo. She left.", "target": {"span1_text": "Ann", "span2_text": "She"}, "label": False},
            'Ann met Bo. She left.\nIn the previous sentence, does the pronoun "she" refer to Ann? Yes or No?\n',
            ("No", "Yes"),
            0,
            "",
        ),
        (
            "wic",
            {"word": "run", "sentence1": "Run home.", "sentence2": "A long run.", "label": False},
            'Does the word "run" have the same meaning in these two sentences? Yes, No?\nRun home.\nA long run.\n',
            ("No", "Yes"),
            0,
            "",
        ),
        (
            "copa",
            {
                "premise": "It rained.",
                "choice1": "I got wet.",
                "choice2": "Ann slept.",
                "question": "effect",
                "label": 0,
            },
            "It rained so",
            (" I got wet.", " ann slept."),
            0,
            "so",
        ),
        (
            "copa",
            {"premise": "I fell.", "choice1": "It was icy.", "choice2": "We sat.", "question": "cause", "label": "1"},
            "I fell because",
            (" it was icy.", " we sat."),
            1,
            "because",
        ),
    ],
)
def test_the_wording_of_choices(
    task: str, row: dict[str, Any], prompt: str, options: tuple[str, ...], label: int, calibration: str
) -> None:
    (example,) = prompted(task, row)
    assert (example.prompt, example.options, example.labels) == (prompt, options, (label,))
    assert example.calibration_prompt == calibration


def test_multirc_asks_for_each_answer_of_a_question() -> None:
    questions = [
        {"idx": 3, "question": "Who left?", "answers": [{"text": "Ann", "label": 1}, {"text": "Bo", "label": 0}]}
    ]
    first, second = prompted("multirc", {"idx": 8, "passage": {"text": "Ann left.", "questions": questions}})
    assert first.prompt == 'Ann left.\nQuestion: Who left?\nI found this answer "Ann". Is that correct? Yes or No?\n'
    assert (first.labels, second.labels) == ((1,), (0,))
    assert first.group == second.group == "8-3"
    assert first.source == second.source == "8"


def test_record_offers_all_entities_and_accepts_several() -> None:
    text = "Ann met Bo in Rome.\n@highlight\nBo left"
    entities = [{"start": 0, "end": 2}, {"start": 8, "end": 9}, {"start": 14, "end": 17}, {"start": 31, "end": 32}]
    qa = {"query": "@placeholder went home", "answers": [{"text": "Bo"}, {"text": "Ann"}]}
    (example,) = prompted("record", {"passage": {"text": text, "entities": entities}, "qas": [qa]})
    assert example.prompt == "Ann met Bo in Rome.\n- Bo left\n-"
    assert example.options == (" Ann went home", " Bo went home", " Rome went home")
    assert example.labels == (0, 1)


def test_record_without_a_right_answer_among_the_entities_is_an_error() -> None:
    row = {"passage": "Ann.", "query": "@placeholder", "entities": ["Ann"], "answers": ["Bo"]}
    with pytest.raises(DataError, match="no right answer .Bo. among the entities"):
        prompted("record", row)


def squad_article(start: int = 0) -> dict[str, Any]:
    answers = [{"text": "Ann", "answer_start": start}, {"text": "Ann Lee", "answer_start": 0}]
    qa = {"id": "q1", "question": " Who left?", "answers": answers}
    return {"title": "Leaving", "paragraphs": [{"context": "Ann Lee left.", "qas": [qa]}]}


def test_squad_learns_the_first_answer_and_accepts_all() -> None:
    (example,) = prompted("squad", squad_article())
    assert example.prompt == "Title: Leaving\nContext: Ann Lee left.\nQuestion: Who left?\nAnswer:"
    assert example.options == (" Ann\n",)
    assert example.answers == (("Ann",), ("Ann Lee",))


def test_a_squad_answer_that_is_not_in_its_context_is_an_error_with_its_place(tmp_path: Path, decoder: str) -> None:
    (tmp_path / "train.json").write_text(json.dumps({"data": [squad_article(start=4)]}))
    with pytest.raises(DataError, match=r"train.json \[0\]: question q1: the answer 'Ann' is not at 4"):
        Squad(decoder, data_dir=tmp_path).read("train")


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        ({"number": "5", "spans": [], "date": {}}, ("5",)),
        ({"number": "", "spans": ["Ann", "Bo"], "date": {}}, ("Ann", "Bo")),
        ({"number": "", "spans": [], "date": {"day": "3", "month": "May", "year": "1990"}}, ("3 May 1990",)),
    ],
)
def test_drop_answers_are_numbers_spans_or_dates(answer: dict[str, Any], spans: tuple[str, ...]) -> None:
    qa = {"question": "How many?", "answer": answer, "validated_answers": [{"number": "7"}]}
    (example,) = prompted("drop", {"passage": "Five left.", "qa_pairs": [qa]})
    assert example.answers == (spans, ("7",))
    assert example.options == (f" {spans[0]}\n",)


@pytest.mark.parametrize(
    ("task", "train", "validation"),
    [
        ("sst2", 5000, 436),
        ("rte", 2490, 138),
        ("cb", 250, 29),
        ("boolq", 1886, 1500),
        ("wsc", 554, 104),
        ("wic", 5000, 319),
        ("multirc", 27243, 2415),
        ("copa", 400, 50),
        ("record", 37, 21),
        ("squad", 4370, 1056),
        ("drop", 4063, 1278),
    ],
)
def test_the_real_files_hold_what_they_should(
    task: str, train: int, validation: int, decoder: str, data_dir: Path
) -> None:
    data = CLASSES.get(task, SuperGlue)(decoder, task=task, prompt=True, data_dir=data_dir)
    counts = []
    for split in ("train", "validation"):
        examples = data.read(split)
        counts.append(len(examples))
        assert all(0 <= label < len(example.options) for example in examples for label in example.labels)
        assert all(option.strip() for example in examples for option in example.options)
    # ReCoRD's files hold more than one query a passage.
    assert counts == [train, validation] or (task == "record" and min(counts) >= 21)


def test_the_contrast_set_of_drop_is_read_as_a_split(decoder: str, data_dir: Path) -> None:
    assert len(Drop(decoder, data_dir=data_dir).read("contrast_set")) == 947


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("copa", '{"premise": "It rained."}', "no 'choice1', 'choice2', 'question', 'label', which copa needs"),
        ("cb", '{"premise": "a", "hypothesis": "b", "label": "perhaps"}', "label 'perhaps' is outside the set"),
        ("multirc", '{"passage": {"text": "a"}, "idx": 0}', "not as multirc lays its data out"),
    ],
)
def test_a_malformed_row_is_an_error_with_its_place(
    task: str, line: str, message: str, decoder: str, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(DataError, match=f"train.jsonl:1: {message}"):
        SuperGlue(decoder, task=task, prompt=True, data_dir=tmp_path).read("train")
