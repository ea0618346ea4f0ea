"""Tables of one's own as data of a fit."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset

from beft_lightning.__main__ import main
from beft_lightning.checkpoint import MODEL_KEY, read_checkpoint
from beft_lightning.data import Table
from beft_lightning.errors import DataError
from tests.tiny import sentences


def frame(count: int = 40, seed: int = 0) -> pd.DataFrame:
    """Made-up sentences, in a CSV file's way of writing labels."""
    made = pd.DataFrame(sentences(count, seed), columns=["review", "verdict"])
    return made.assign(verdict=made.verdict.map({0: "neg", 1: "pos"}), second="the film", stars=range(count))


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(rows: Any, name: str = "train.csv") -> str:
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False)
        return str(tmp_path / name)

    return to_file


@pytest.fixture
def make(backbone: str) -> Any:
    def build(train: str, **options: Any) -> Table:
        return Table(backbone, train, **{"text": "review", "label": "verdict", "batch_size": 4, "seed": 0, **options})

    return build


def test_texts_and_labels_are_those_of_the_file(make: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = frame()
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.data.table.file_data.rank_zero_info", messages.append)
    data = make(write(rows), validation=write(frame(8, seed=1), "dev.csv"))
    assert [message.partition(": ")[2] for message in messages] == ["40 rows, classification, labels 0 = neg, 1 = pos."]
    assert (data.task.kind, data.task.labels, data.task.text) == ("classification", ("neg", "pos"), ("review",))
    examples = data.read("train")
    assert [row["review"] for row in examples] == list(rows.review)
    assert [data.task.labels[row["label"]] for row in examples] == list(rows.verdict)
    assert len(data.read("validation")) == 8


def test_a_pair_of_texts_has_a_comma_or_is_a_list(make: Any, write: Any) -> None:
    path = write(frame())
    for text in ("review, second", ["review", "second"]):
        data = make(path, text=text)
        data.setup("fit")
        assert data.task.text == ("review", "second")
        batch = next(iter(data.train_dataloader()))
        assert batch["token_type_ids"].max() == 1


def test_numbers_with_fractions_are_scores_unless_the_kind_says_otherwise(make: Any, write: Any) -> None:
    halves = write(frame().assign(verdict=[0.5, 1.0] * 20))
    assert (make(halves).task.kind, make(halves).task.labels) == ("regression", ())
    assert make(halves).read("train")[0]["label"] == 0.5
    assert make(halves, kind="classification").task.labels == ("0.5", "1.0")
    whole = write(frame())
    assert make(whole, label="stars", kind="regression").read("train")[3]["label"] in range(40)


def test_labels_of_a_csv_file_are_told_apart_as_they_are_written(make: Any, write: Any) -> None:
    data = make(write(frame().assign(verdict=["01", "1"] * 20, second="007")), text="second")
    assert data.task.labels == ("01", "1")
    assert {(row["second"], row["label"]) for row in data.read("train")} == {("007", 0), ("007", 1)}


def test_class_labels_keep_the_names_and_the_order_that_they_declare(make: Any, tmp_path: Path) -> None:
    """Names that look like other ids must not be taken for them."""
    table = Dataset.from_dict({"review": ["a", "film", "good"] * 4, "verdict": [0, 1, 1] * 4})
    table.cast_column("verdict", ClassLabel(names=["1", "0", "never"])).save_to_disk(str(tmp_path / "saved"))
    data = make(str(tmp_path / "saved"), dev_share=1)
    assert data.task.labels == ("1", "0", "never")
    assert sorted(row["label"] for row in data.read("train") + data.read("validation")) == [0] * 4 + [1] * 8


@pytest.mark.parametrize(("share", "size"), [(None, 4), (0.25, 10), (6, 6)])
def test_the_dev_share_is_stratified_seeded_and_apart_from_training(
    share: float | None, size: int, make: Any, write: Any
) -> None:
    rows = frame().assign(verdict=["pos"] * 30 + ["neg"] * 10)
    path = write(rows)
    data = make(path, dev_share=share)
    training, dev = data.read("train"), data.read("validation")
    assert len(dev) == size
    assert sorted(row["id"] for row in training + dev) == list(range(40))
    assert Counter(row["label"] for row in dev)[0] == pytest.approx(size / 4, abs=0.5)
    again, other = make(path, dev_share=share), make(path, dev_share=share, seed=1)
    assert again.read("validation") == dev
    assert other.read("validation") != dev
    assert data.reseeded(1).read("validation") == dev  # its seed is its own


def test_a_test_file_is_for_test_and_validation_for_training(make: Any, write: Any) -> None:
    data = make(write(frame()), test=write(frame(6, seed=2), "test.csv"), dev_share=8)
    data.setup("fit")
    data.setup("test")
    assert sum(len(batch["id"]) for batch in data.val_dataloader()[0]) == 8
    assert sum(len(batch["id"]) for batch in data.test_dataloader()[0]) == 6
    assert sum(len(batch["id"]) for batch in data.train_dataloader()) == 32


@pytest.mark.parametrize("column", ["idx", "id"])
def test_rows_keep_the_id_of_the_file(column: str, make: Any, write: Any) -> None:
    rows = frame().assign(**{column: [f"q{number}" for number in range(40)]})
    data = make(write(rows), validation=write(rows[30:], "dev.csv"))
    data.setup("fit")
    assert data.file_id("validation", 3) == "q33"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"text": "text"}, r"train.csv: no column 'text'; there are: review, verdict, second, stars"),
        ({}, {"label": "label"}, "no column 'label'; there are"),
        ({}, {"text": "review,second,stars"}, "one column, or two different ones"),
        ({}, {"text": "review,verdict"}, "not the label's, 'verdict'"),
        ({"review": [*["a"] * 39, None]}, {}, "train.csv row 40: column 'review' is empty"),
        ({"review": [*["a"] * 39, "  "]}, {}, "train.csv row 40: column 'review' is empty"),
        ({"verdict": [*["a"] * 39, None]}, {}, "train.csv row 40: column 'verdict' is empty"),
        ({"verdict": "pos"}, {}, "every row has the label 'pos'"),
        ({}, {"label": "stars"}, "column 'stars' has 40 different values in 40 rows"),
        ({}, {"kind": "regression"}, "train.csv row 1: label '(neg|pos)' is not a number"),
        ({"stars": [*["2.5"] * 39, "many"]}, {"label": "stars", "kind": "regression"}, "row 40: label 'many' is not a"),
        ({}, {"dev_share": 40}, "dev_share 40 leaves none of 40 rows"),
        ({}, {"dev_share": 0}, "dev_share 0 must be"),
        ({}, {"dev_share": 1.5}, "dev_share 1.5 must be"),
        ({}, {"dev_share": 38}, "train.csv: 2 rows to train on are fewer than a batch of 4"),
        ({}, {"dev_share": 3, "validation": "x.csv"}, "leave out one"),
        ({}, {"test": "x.csv", "dev_size": 3}, "dev_size has no use"),
        ({}, {"prompt": "It was"}, "name at least one column in braces"),
        ({}, {"prompt": "{text} It was"}, "no column 'text'.* Set --data.prompt and --data.label"),
        ({}, {"prompt": "{review} {verdict}"}, "not the label's"),
        ({}, {"prompt": "{review"}, "--data.prompt"),
    ],
)
def test_a_table_that_cannot_be_learnt(
    change: dict[str, Any], options: dict[str, Any], message: str, make: Any, write: Any
) -> None:
    path = write(frame().assign(**change))
    with pytest.raises(DataError, match=message):
        make(path, **options).read("train")


def test_a_label_only_in_validation(make: Any, write: Any) -> None:
    """An id within the range of the labels is no label, either."""
    train = write(frame().assign(verdict=[1, 2] * 20))
    data = make(train, validation=write(frame(3).assign(verdict=[1, 2, 0]), "dev.csv"))
    with pytest.raises(DataError, match=r"dev.csv row 3: label '0' is not among those of .*train.csv: 1, 2"):
        data.read("validation")


def test_a_prompt_has_the_label_names_as_options(decoder: str, write: Any) -> None:
    path = write(frame())
    data = Table(decoder, path, label="verdict", prompt="{review}\\nIt was", batch_size=4, seed=0)
    assert (data.task.kind, data.task.labels) == ("choice", ("neg", "pos"))
    example = data.read("train")[0]
    assert (example.prompt.split("\n")[1], example.options) == ("It was", (" neg", " pos"))
    data.setup("fit")
    assert len(next(iter(data.train_dataloader()))["labels"]) == 4


@pytest.mark.parametrize("form", ["options", "yaml"])
def test_a_fit_by_the_command_line_alone(form: str, backbone: str, write: Any, tmp_path: Path) -> None:
    trainer = ["--trainer.max_epochs", "1", "--trainer.default_root_dir", str(tmp_path / "out")]
    options = ["--model.backbone", backbone, "--model.tune", "value", "--trainer.enable_progress_bar", "false"]
    if form == "options":
        data = ["--data", "Table", "--data.train", write(frame()), "--data.text", "review", "--data.label", "verdict"]
    else:
        arguments = {"train": write(frame()), "text": "review", "label": "verdict"}
        (tmp_path / "own.yaml").write_text(json.dumps({"data": {"class_path": "Table", "init_args": arguments}}))
        data = ["--config", str(tmp_path / "own.yaml")]
    test = ["--data.test", write(frame(12, seed=1), "test.csv")]
    assert main(["fit", *trainer, *options, *data, *test]) == 0
    run = tmp_path / "out" / "lightning_logs" / "version_0"
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert {"val_accuracy", "val_macro_f1", "val_loss"} <= set(metrics)
    record = read_checkpoint(run / "checkpoints" / "last.ckpt")[MODEL_KEY]
    assert record["labels"] == ["neg", "pos"]
    task = {"name": "train", "kind": "classification", "max_length": 128, "labels": ["neg", "pos"], "text": ["review"]}
    assert record["task"] == task
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    assert main(["test", *trainer, *options, *data, *test, *checkpoint]) == 0
    metrics = json.loads((run.parent / "version_1" / "summary.json").read_text())["metrics"]
    assert "test_accuracy" in metrics


def test_without_a_length_a_fit_takes_the_epochs_of_the_task(
    backbone: str, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[Any] = []
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda self, *args, **options: lengths.append(self.max_epochs))
    common = ["--model.backbone", backbone, "--model.tune", "value", "--trainer.default_root_dir", str(tmp_path)]
    data = ["--data", "Table", "--data.train", write(frame()), "--data.text", "review", "--data.label", "verdict"]
    for options in ([], ["--trainer.max_epochs", "2"], ["--trainer.max_steps", "9"]):
        assert main(["fit", *common, *data, *options]) == 0
    assert lengths == [30, 2, None]


def test_a_table_without_a_file(backbone: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.backbone", backbone, "--data", "Table"]) == 2
    assert "give --data.train" in capsys.readouterr().err
