"""Operations of all processes, in a run of one; the other tests of this folder have two."""

import pytest

from beft_lightning.errors import BeftError
from beft_lightning.strategies import collectives
from beft_lightning.strategies.collectives import check_same, destroy_process_group, gather


def test_one_process_is_alone() -> None:
    assert gather({"a": 1}) == [{"a": 1}]
    check_same({"seed": 1})
    destroy_process_group()  # there is none, and that is no error


def test_a_setting_that_differs_is_named_with_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "gather", lambda value: [value, {**value, "seed": 2}])
    with pytest.raises(BeftError, match="seed is 1 in process 0 and 2 in process 1: start all processes with the same"):
        check_same({"tune": "value", "seed": 1})
