"""SQuAD and DROP: original files, and DROP's contrast set beside its validation split."""

import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Drop, Squad
from beft_lightning.data.generation import Generation
from beft_lightning.errors import DataError


def write_drop(folder: Path, split: str, number: str) -> None:
    pairs = [{"question": f"How many {word}?", "answer": {"number": number}} for word in ("films", "cars")]
    content = {"p1": {"passage": "The film was good, the car red.", "qa_pairs": pairs}}
    (folder / f"{split}.json").write_text(json.dumps(content))


def squad_file(path: Path, begin: int) -> None:
    answer = {"text": "red", "answer_start": begin}
    qas = [{"id": "q7", "question": "Which colour?", "answers": [answer]}]
    article = {"title": "Cars", "paragraphs": [{"context": "The car is red.", "qas": qas}]}
    path.write_text(json.dumps({"data": [article]}))


def test_the_contrast_set_is_reported_beside_the_validation_split(
    decoder: str, tmp_path: Path, make_trainer: Any
) -> None:
    write_drop(tmp_path, "validation", "2")
    write_drop(tmp_path, "contrast_set", "3")
    data = Drop(decoder, data_dir=tmp_path, max_length=64, evaluation_splits=["validation", "contrast_set"])
    module = LanguageTaskModule(decoder, data.task, tune="value")
    results: dict[str, float] = {}
    for result in make_trainer().test(module, datamodule=data, verbose=False):
        results.update(result)
    metrics = ("answer_f1", "drop_f1", "drop_em", "loss")
    assert set(results) == {f"test_{split}{metric}" for split in ("", "contrast_set_") for metric in metrics}
    (_, contrast) = data.test_dataloader()
    assert next(iter(contrast))["answers"] == [[["3"]], [["3"]]]


def test_real_contrast_set(decoder: str, data_dir: Path) -> None:
    data = Drop(decoder, data_dir=data_dir, evaluation_splits=["contrast_set"])
    assert len(data.read("contrast_set")) == 947


def test_a_misplaced_answer_names_file_and_question(decoder: str, tmp_path: Path) -> None:
    squad_file(tmp_path / "train.json", begin=11)
    squad_file(tmp_path / "validation.json", begin=4)
    data = Squad(decoder, data_dir=tmp_path)
    assert data.read("train")[0].options == (" red\n",)
    with pytest.raises(DataError, match=r"question q7: the answer 'red' is not at 4 in its context"):
        data.read("validation")


@pytest.mark.parametrize("make", [Squad, Drop])
def test_there_are_no_bare_texts(make: Any, decoder: str) -> None:
    with pytest.raises(DataError, match="has no task"):
        make(decoder, prompt=False)


def test_answers_are_generated_so_there_are_no_options_to_calibrate(decoder: str, tmp_path: Path) -> None:
    write_drop(tmp_path, "validation", "2")
    with pytest.raises(DataError, match="generates its answers, so there are no options to calibrate"):
        Drop(decoder, data_dir=tmp_path, calibrate=True).setup("validate")


def test_answers_are_generated_as_asked(decoder: str, tmp_path: Path) -> None:
    squad_file(tmp_path / "train.json", begin=11)
    squad_file(tmp_path / "validation.json", begin=11)
    options: dict[str, Any] = {"data_dir": tmp_path, "batch_size": 1, "max_length": 60}
    asked: Any = Squad(decoder, max_new_tokens=7, stop="end_of_text", generate={"num_beams": 2}, **options)
    plain: Any = Squad(decoder, **options)
    assert asked.task.generation == Generation(7, "end_of_text", {"num_beams": 2})
    assert plain.task.generation == Generation(50, "line")
    asked.setup("fit")
    assert asked.tokenizer is not None
    (learnt,) = asked._splits["train"]
    assert learnt["encoded"].row(0)[-1] == asked.tokenizer.eos_token_id
    for wrong in ({"max_new_tokens": 0}, {"stop": "word"}, {"generate": {"beams": 2}}, {"generate": {"num_beams": 0}}):
        with pytest.raises(DataError, match="must be|is unknown|no option"):
            Drop(decoder, **options, **wrong)


def test_solved_questions_may_stand_in_front(decoder: str, tmp_path: Path) -> None:
    write_drop(tmp_path, "validation", "2")
    write_drop(tmp_path, "train", "5")
    data = Drop(decoder, data_dir=tmp_path, max_length=200, demonstrations=1, seed=0)
    data.setup("validate")
    (loader,) = data.val_dataloader()
    assert data.tokenizer is not None
    texts = data.tokenizer.batch_decode(next(iter(loader))["input_ids"])
    assert all(text.count("good") == 2 for text in texts)
