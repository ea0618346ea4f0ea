"""The command ``download``."""

from pathlib import Path
from typing import Any

import pytest

from beft_lightning import LanguageTaskModule, data
from beft_lightning.__main__ import main


def test_download_fetches_without_training(argv: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    original = LanguageTaskModule.configure_model

    def configure_model(module: LanguageTaskModule) -> None:
        fetched.append("model")
        original(module)

    monkeypatch.setattr(data.Glue, "prepare_data", lambda self: fetched.append("data"))
    monkeypatch.setattr(LanguageTaskModule, "configure_model", configure_model)
    assert main(argv("download")) == 0
    assert fetched == ["data", "model"]
    assert not out.exists()
