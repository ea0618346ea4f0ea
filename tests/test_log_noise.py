"""Which messages of libraries are left out."""

import logging
import warnings
from pathlib import Path

import datasets
import pytest
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from beft_lightning import log_noise
from beft_lightning.log_noise import leave_out_bars, leave_out_noise


def test_advertisements_are_left_out_and_facts_stay(caplog: pytest.LogCaptureFixture) -> None:
    leave_out_noise("fit")
    leave_out_noise("fit")  # once more changes nothing
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


@pytest.mark.parametrize("terminal", [True, False])
def test_a_warning_is_broken_at_words_in_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restores it
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "20")
    leave_out_noise("fit")
    own, other = (
        warnings.formatwarning("a choice within noise", UserWarning, filename, 7, None)
        for filename in (str(Path(log_noise.__file__).parent / "scoring" / "report.py"), "/lib/torch/nn.py")
    )
    assert own == ("warning: a choice\nwithin noise\n" if terminal else "warning: a choice within noise\n")
    assert other.replace("\n", " ") == "warning: a choice within noise (/lib/torch/nn.py:7) "


def test_only_a_fit_hears_that_it_goes_on_elsewhere() -> None:
    for command, count in (("fit", 1), ("validate", 0)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            leave_out_noise(command)
            warnings.warn("The dirpath has changed from 'a' to 'b'", stacklevel=1)
        assert len(caught) == count
