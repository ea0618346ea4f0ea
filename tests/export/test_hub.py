"""The hub of Hugging Face, with a stand-in for its client: no network."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from beft_lightning.errors import ExportError
from beft_lightning.export import export
from beft_lightning.export.hub import base_licence, check_repository, push


class _Api:
    """Stands in for huggingface_hub's client."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._error = error

    def create_repo(self, repository: str, **options: Any) -> str:
        self.calls.append((repository, options))
        return f"https://hub/{repository}"

    def upload_folder(self, **options: Any) -> None:
        if self._error:
            raise self._error
        self.calls.append(("folder", options))

    def upload_file(self, **options: Any) -> None:
        self.calls.append(("file", options))


def test_an_export_is_pushed_to_a_private_repository(tmp_path: Path) -> None:
    api = _Api()
    assert push(tmp_path, "me/model", api) == "https://hub/me/model"
    assert api.calls[0] == ("me/model", {"private": True, "exist_ok": True})
    assert api.calls[1][1]["folder_path"] == tmp_path
    (tmp_path / "a.gguf").touch()
    push(tmp_path / "a.gguf", "me/model", api)
    assert api.calls[3][1]["path_in_repo"] == "a.gguf"
    with pytest.raises(ExportError, match=r"is written, and could not be uploaded to 'me/model' \(no network\)"):
        push(tmp_path, "me/model", _Api(OSError("no network")))
    with pytest.raises(ExportError, match="--push no/such/name"):
        export("no.ckpt", tmp_path / "out", "hf", push="no/such/name")


def test_without_a_network_it_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    api = HfApi(endpoint="http://127.0.0.1:9", token=False)
    with pytest.raises(ExportError, match=r"could not be uploaded to 'me/model' \(.*refused"):
        push(tmp_path, "me/model", api)


@pytest.mark.parametrize("name", ["a b", "me/model/part", "-me/model", ""])
def test_what_is_no_name_of_a_repository_is_refused_before_anything_is_loaded(name: str) -> None:
    check_repository("me/model")
    with pytest.raises(ExportError, match=r"--push .*Give USER/NAME"):
        check_repository(name)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\nA model.", "mit"),
        ("---\nlanguage: en\n---\nA model.", None),
        ("A model.", None),
        ("---\nlicense: [a\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_is_what_the_bases_card_says(card: str | None, licence: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert base_licence(str(tmp_path)) == licence
