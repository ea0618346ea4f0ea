"""Files in the style of CoNLL."""

from pathlib import Path

import pytest

from beft_lightning.data.table.files import read_table
from beft_lightning.errors import DataError


def test_sentences_are_rows_of_words_and_tags(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O\n\nAda NNP B-PER\nLovelace NNP I-PER\n\n \nwrote VB O\n"
    (tmp_path / "t.conll").write_text(text, encoding="utf-8")
    assert read_table(tmp_path / "t.conll", "train").to_list() == [
        {"tokens": ["Ada", "Lovelace"], "tags": ["B-PER", "I-PER"]},
        {"tokens": ["wrote"], "tags": ["O"]},
    ]


def test_words_alone_have_no_tags(tmp_path: Path) -> None:
    (tmp_path / "t.conll").write_text("Ada\nwrote\n")
    assert read_table(tmp_path / "t.conll", "train").to_list() == [{"tokens": ["Ada", "wrote"]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Ada\tO\nwrote\n", "t.conll:2: 1 columns instead of 2"),
        (b"Ada O\n\xff O\n", "t.conll: not readable as UTF-8"),
        (b"\n\n", "t.conll: no rows"),
    ],
)
def test_a_file_that_is_none(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.conll").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.conll", "train")
