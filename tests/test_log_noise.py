"""Which messages of libraries are left out."""

import logging

import datasets
import pytest
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from beft_lightning.log_noise import leave_out_bars, leave_out_noise


def test_advertisements_are_left_out_and_facts_stay(caplog: pytest.LogCaptureFixture) -> None:
    leave_out_noise()
    leave_out_noise()  # once more changes nothing
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    assert len(logger.filters) == 1
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.info("try installing litlogger")
        logger.info("GPU available: False, used: False")
    assert [record.message for record in caplog.records] == ["GPU available: False, used: False"]


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_for_terminals(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    enable_progress_bar()
    datasets.enable_progress_bars()
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    leave_out_bars()
    enabled = [is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()]
    enable_progress_bar()
    datasets.enable_progress_bars()
    assert enabled == [terminal, terminal]
