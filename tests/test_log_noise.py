"""Which messages of libraries are left out."""

import logging

import pytest

from beft_lightning.log_noise import leave_out_noise


def test_advertisements_are_left_out_and_facts_stay(caplog: pytest.LogCaptureFixture) -> None:
    leave_out_noise()
    leave_out_noise()  # once more changes nothing
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    assert len(logger.filters) == 1
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.info("try installing litlogger")
        logger.info("GPU available: False, used: False")
    assert [record.message for record in caplog.records] == ["GPU available: False, used: False"]
