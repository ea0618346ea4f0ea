"""The settings of a race."""

from typing import Any

import pytest

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.race.settings import RaceSettings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": (1e-3, 0.0)}, "must be above 0"),
        ({"rates": (1e-3, 1e-3)}, "named once"),
        ({"batches": 0}, r"race.batches \(0\)"),
        ({"allowance": 0}, r"race.allowance \(0\)"),
        ({"held_out": 1}, r"race.held_out \(1\)"),
    ],
)
def test_impossible_settings_are_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        RaceSettings(**options)


def test_no_rates_keep_the_optimizers() -> None:
    assert RaceSettings(rates=()).rates == ()
