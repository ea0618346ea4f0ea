"""Bars of what takes long."""

from io import StringIO

import pytest
from rich.console import Console

from beft_lightning.progress import bar


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr("beft_lightning.progress.Console", lambda: console)
    return shown


def test_a_bar_counts_its_steps(terminal: StringIO) -> None:
    with bar("racing", 2) as advance:
        advance()
        advance()
    assert "racing" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()


def test_a_bar_goes_away_with_an_error(terminal: StringIO) -> None:
    with pytest.raises(OSError, match="full"), bar("encoding", 2):
        raise OSError("full")
    with bar("encoding", 2):  # there is no other bar left
        pass


def test_other_processes_and_pipes_have_no_bar(
    terminal: StringIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("beft_lightning.progress.rank_zero_only.rank", 1)
    with bar("scoring", 2) as advance:
        advance()
    monkeypatch.undo()
    with bar("scoring", 2) as advance:
        advance()
    assert terminal.getvalue() == capsys.readouterr().out == ""
