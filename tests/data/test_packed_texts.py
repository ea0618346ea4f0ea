"""Texts joined into rows."""

from itertools import pairwise

import pytest

from beft_lightning.data.packed_options import pack_options
from beft_lightning.data.packed_texts import encode_text, pack_texts

TEXTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 7, 12, 100])
def test_each_token_but_a_texts_first_is_scored_once_behind_the_one_before(columns: int) -> None:
    rows = pack_texts(TEXTS, columns)
    batch = pack_options(rows, pad_token=0)
    predictors = batch["input_ids"][batch["target_row"], batch["target_column"]]
    assert sorted(zip(predictors.tolist(), batch["target_token"].tolist(), strict=True)) == [
        pair for text in TEXTS for pair in pairwise(text)
    ]
    assert [row.length for row in rows[:-1]] == [columns] * (len(rows) - 1)
    assert rows[-1].length <= columns


def test_each_text_sees_itself_alone_and_begins_at_position_0() -> None:
    batch = pack_options(pack_texts(TEXTS, 6), pad_token=0)
    assert batch["input_ids"].tolist() == [[1, 2, 4, 5, 6, 7], [8, 9, 11, 13, 14, 15]]
    assert batch["segment_ids"].tolist() == [[1, 1, 2, 2, 2, 2], [1, 1, 2, 3, 3, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 3], [0, 1, 0, 0, 1, 2]]


def test_a_text_alone_is_an_ordinary_row() -> None:
    assert pack_texts(TEXTS[:1], 100) == [encode_text(TEXTS[0])]
    assert pack_options([encode_text([1, 2, 3])], 0)["segment_ids"].tolist() == [[0, 0]]
