"""Reading original files: real ones, and broken ones."""

import json
from pathlib import Path

import datasets
import pytest

from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, SUPER_GLUE_TASKS
from beft_lightning.data.sources import Row, hub_rows, local_rows
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError

SST2, MRPC, COLA, STSB, MNLI = (GLUE_TASKS[name] for name in ("sst2", "mrpc", "cola", "stsb", "mnli"))
WIC = SUPER_GLUE_TASKS["wic"]


def read_local(folder: Path, task: TaskRecord, split: str, suffix: str) -> list[Row]:
    return task.parse(local_rows(folder, task.name, split, suffix, task.header), str(folder / split))


def read_hub(task: TaskRecord, split: str, hub_id: str | None, revision: str | None) -> list[Row]:
    return task.parse(hub_rows(task.hub, split, hub_id, revision), "hub")


@pytest.mark.parametrize(
    ("benchmark", "name", "train", "validation", "suffix"),
    [
        ("glue", "cola", [1474, 3526], [147, 374], ".tsv"),
        ("glue", "mrpc", [1194, 2474], [68, 136], ".tsv"),
        ("glue", "qnli", [2497, 2503], [745, 755], ".tsv"),
        ("glue", "qqp", [2475, 2525], [309, 191], ".tsv"),
        ("glue", "rte", [1249, 1241], [72, 66], ".tsv"),
        ("glue", "sst2", [2252, 2748], [210, 226], ".tsv"),
        ("glue", "wnli", [323, 312], [40, 31], ".tsv"),
        ("super_glue", "cb", [115, 119, 16], [12, 14, 3], ".jsonl"),
        ("super_glue", "wic", [2494, 2506], [158, 161], ".jsonl"),
    ],
)
def test_the_real_files_have_the_known_label_counts(
    benchmark: str, name: str, train: list[int], validation: list[int], suffix: str, data_dir: Path
) -> None:
    task = {**GLUE_TASKS, **SUPER_GLUE_TASKS}[name]
    for split, counts in (("train", train), ("validation", validation)):
        rows = read_local(data_dir / benchmark / name, task, split, suffix)
        labels = [row["label"] for row in rows]
        assert [labels.count(label) for label in range(len(task.labels))] == counts
        assert all(row[column].strip() for row in rows for column in task.text)
        assert [row["id"] for row in rows] == list(range(len(rows)))


def test_the_real_mnli_files_have_different_columns_but_the_same_labels(data_dir: Path) -> None:
    counts = {}
    for split in ("train", *MNLI.evaluation_splits):
        labels = [row["label"] for row in read_local(data_dir / "glue" / "mnli", MNLI, split, ".tsv")]
        counts[split] = [labels.count(label) for label in range(3)]
    assert counts == {
        "train": [971, 1053, 976],
        "validation_matched": [174, 163, 163],
        "validation_mismatched": [174, 160, 166],
    }


def test_the_real_stsb_scores_are_numbers_from_0_to_5(data_dir: Path) -> None:
    labels = [row["label"] for row in read_local(data_dir / "glue" / "stsb", STSB, "train", ".tsv")]
    assert (len(labels), min(labels), max(labels)) == (5000, 0.0, 5.0)
    assert sum(labels) / len(labels) == pytest.approx(2.70, abs=0.01)


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    (folder / name).write_text(text, encoding=encoding)
    return folder


def test_quotation_marks_are_text(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", 'sentence\tlabel\na "great film\t1\n"dull\t0\n')
    rows = read_local(tmp_path, SST2, "train", ".tsv")
    assert [row["sentence"] for row in rows] == ['a "great film', '"dull']


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    text = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tIt rains.\tRain falls.\n"
    write(tmp_path, "train.tsv", text, encoding="utf-8-sig")
    assert read_local(tmp_path, MRPC, "train", ".tsv") == [
        {"sentence1": "It rains.", "sentence2": "Rain falls.", "label": 1, "id": 0}
    ]


def test_cola_has_no_header(tmp_path: Path) -> None:
    write(tmp_path, "dev.tsv", "me01\t0\t*\tHim sleeps.\nme01\t1\t\tHe sleeps.\n")
    rows = read_local(tmp_path, COLA, "validation", ".tsv")
    assert [(row["sentence"], row["label"]) for row in rows] == [("Him sleeps.", 0), ("He sleeps.", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence\tlabel\nfine\t1\nno label here\n", r"train.tsv:3: 1 fields instead of 2 \(sentence, label\)"),
        ("sentence\tlabel\nfine\t1\textra\n", "train.tsv:2: 3 fields instead of 2"),
        ("sentence\tlabel\nfine\t7\n", "train.tsv:2: label '7' is outside the set of labels: negative, positive"),
        ("text\tlabel\nfine\t1\n", "train.tsv:2: no column 'sentence', which sst2 needs; there are: text, label"),
        ("sentence\tlabel\n", "train: the split is empty"),
        ("", "train: the split is empty"),
    ],
)
def test_a_malformed_tsv_file_is_an_error_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", text)
    with pytest.raises(DataError, match=message):
        read_local(tmp_path, SST2, "train", ".tsv")


def test_a_field_may_be_long(tmp_path: Path) -> None:
    long = "good " * 30_000
    write(tmp_path, "train.tsv", f"sentence\tlabel\n{long}\t1\r\n")
    assert read_local(tmp_path, SST2, "train", ".tsv") == [{"sentence": long, "label": 1, "id": 0}]


def test_a_file_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_bytes("sentence\tlabel\ncafé\t1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train.tsv.* not readable as UTF-8"):
        read_local(tmp_path, SST2, "train", ".tsv")


def test_a_blank_last_line_is_no_row(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", "sentence\tlabel\nfine\t1\n\n")
    assert len(read_local(tmp_path, SST2, "train", ".tsv")) == 1


@pytest.mark.parametrize("task", [WIC, PROMPT_TASKS["wic"]])
@pytest.mark.parametrize("text", ["null", "3", '["Run."]'])
def test_a_text_that_is_none_is_an_error(text: str, task: TaskRecord, tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", f'{{"word": "run", "sentence1": {text}, "sentence2": "Run.", "label": true}}')
    with pytest.raises(DataError, match="train.jsonl:1: column 'sentence1' is no text"):
        read_local(tmp_path, task, "train", ".jsonl")


@pytest.mark.parametrize("score", ["nan", "-inf", "1e999", "high"])
def test_a_score_that_is_no_finite_number_is_an_error(score: str, tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", f"sentence1\tsentence2\tscore\na\tb\t5.0\na\tb\t{score}\n")
    with pytest.raises(DataError, match=f"train.tsv:3: label '{score}' is not a number"):
        read_local(tmp_path, STSB, "train", ".tsv")


def test_a_missing_column_is_named_as_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", "Quality\t#1 String\n1\tIt rains.\n")
    with pytest.raises(DataError, match="no column '#2 String', which mrpc needs"):
        read_local(tmp_path, MRPC, "train", ".tsv")


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "val.jsonl:2: not JSON"), ("[1]", "val.jsonl:2: a list, not an object"), ('{"label": 0}', "val.jsonl: ?")],
)
def test_a_malformed_jsonl_file_is_an_error_with_its_line(line: str, message: str, tmp_path: Path) -> None:
    good = json.dumps({"sentence1": "Run home.", "sentence2": "Run it.", "label": False})
    write(tmp_path, "val.jsonl", f"{good}\n{line}\n\n")
    with pytest.raises(DataError, match=message.removesuffix(" ?")):
        read_local(tmp_path, WIC, "validation", ".jsonl")


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
def test_a_byte_order_mark_before_json_is_skipped(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, '{"key": {"sentence": "fine"}}', encoding="utf-8-sig")
    ((_, row),) = local_rows(tmp_path, "any", "train", Path(name).suffix)
    assert row in ({"key": {"sentence": "fine"}}, {"sentence": "fine"})


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
def test_json_that_is_nested_too_deeply_is_an_error(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, "[" * 100_000 + "]" * 100_000)
    with pytest.raises(DataError, match=rf"{name}.*: not JSON \(maximum recursion depth"):
        list(local_rows(tmp_path, "any", "train", Path(name).suffix))


def test_a_missing_file_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no validation.tsv or dev.tsv or val.tsv .* Set `data_dir`"):
        read_local(tmp_path, SST2, "validation", ".tsv")


def test_a_dataset_as_on_the_hub_reads_like_the_original_file(tmp_path: Path) -> None:
    """The hub's loader on a local folder that is laid out as the hub's dataset is."""
    rows = {"sentence1": ["Run home."], "sentence2": ["Run it."], "label": [0], "idx": [5], "word": ["run"]}
    (tmp_path / "wic").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "wic" / "train.parquet")
    configuration = "configs:\n- config_name: wic\n  data_files: wic/*.parquet\n"
    (tmp_path / "README.md").write_text(f"---\n{configuration}---\n")
    assert read_hub(WIC, "train", str(tmp_path), None) == [
        {"sentence1": "Run home.", "sentence2": "Run it.", "file_id": 5, "label": 0, "id": 0}
    ]


def test_a_dataset_without_the_configuration_is_read_with_its_own(tmp_path: Path) -> None:
    rows = {"sentence1": ["Run home."], "sentence2": ["Run it."], "label": [0]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    assert [row["sentence1"] for row in read_hub(WIC, "train", str(tmp_path), None)] == ["Run home."]


def test_an_unreachable_hub_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(
        DataError, match="nobody/nothing: cannot load the train split .*Without network, set `data_dir`"
    ):
        read_hub(WIC, "train", "nobody/nothing", None)


def test_only_the_network_is_blamed_for_its_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot load the train split .*FileNotFoundError.* Give a data set") as raised:
        read_hub(WIC, "train", str(tmp_path / "nowhere"), None)
    assert "Without network" not in str(raised.value)
