"""The command ``serve`` checks its options before anything is loaded."""

from pathlib import Path

import pytest

from beft_lightning.__main__ import main


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adapters", "nowhere"], "--adapters nowhere: no such folder"),
        (["--adapters", ".", "--port", "80"], "--port 80: give a port from 1024 to 65535"),
        (["--adapters", ".", "--max_queue", "0"], "--max_queue 0: must be at least 1"),
        (["--adapters", ".", "--dtype", "float7"], "dtype 'float7' is unknown"),
        ([], "the following arguments are required: --adapters"),
    ],
)
def test_wrong_options_are_one_error(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("litserve")
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--base", "base", *options]) == 2
    assert message in capsys.readouterr().err
