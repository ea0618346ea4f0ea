"""Raw labels as numbers."""

import pytest

from beft_lightning.data.labels import label_index, score
from beft_lightning.errors import DataError


@pytest.mark.parametrize("value", ["yes", "1", 1, True])
def test_labels_are_read_by_name_id_or_truth(value: object) -> None:
    assert label_index(value, ("no", "yes")) == 1


@pytest.mark.parametrize("value", ["maybe", "2", -1, "", "1.0", None])
def test_a_label_outside_the_set_is_an_error(value: object) -> None:
    with pytest.raises(DataError, match=r"label .* outside the set of labels: no, yes \(or 0 to 1\)"):
        label_index(value, ("no", "yes"))


@pytest.mark.parametrize("value", ["5", "5.0", "5.000", 5.0])
def test_scores_are_read_in_any_precision(value: object) -> None:
    assert score(value) == 5.0


@pytest.mark.parametrize("value", ["high", "nan", "inf"])
def test_a_score_that_is_no_number_is_an_error(value: str) -> None:
    with pytest.raises(DataError, match=f"'{value}' is not a number"):
        score(value)
