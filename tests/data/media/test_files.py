"""Folders with a folder of files for each label."""

from pathlib import Path

import pytest

from beft_lightning.data.media.files import is_media_folder, media_files, read_media_folder
from beft_lightning.errors import DataError
from tests.media import write_pictures


def test_the_folder_of_a_file_is_its_label(tmp_path: Path) -> None:
    names = write_pictures(tmp_path, 4)
    (tmp_path / "left" / "deeper").mkdir()
    (tmp_path / "left" / "0.png").rename(tmp_path / "left" / "deeper" / "0.PNG")
    table = read_media_folder(tmp_path, "train", "image")
    names = ["left/2.png", "left/deeper/0.PNG", "right/1.png", "right/3.png"]
    assert [*table["image"]] == names
    assert [*table["label"]] == [0, 0, 1, 1]
    assert table.features["label"].names == ["left", "right"]


def test_what_programs_leave_for_themselves_is_no_label(tmp_path: Path) -> None:
    names = write_pictures(tmp_path, 4)
    for folder in (tmp_path / ".ipynb_checkpoints", tmp_path / "__MACOSX", tmp_path / "left" / ".ipynb_checkpoints"):
        folder.mkdir()
        (folder / "0.png").write_bytes((tmp_path / names[0]).read_bytes())
    assert len(media_files(tmp_path, "image")) == 4
    assert read_media_folder(tmp_path, "train", "image").features["label"].names == ["left", "right"]


def test_a_folder_for_each_split(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", 4)
    write_pictures(tmp_path / "test", 2)
    assert len(read_media_folder(tmp_path, "train", "image")) == 4
    assert [*read_media_folder(tmp_path, "test", "image")["image"]] == ["test/left/0.png", "test/right/1.png"]
    with pytest.raises(DataError, match="no folder 'validation'; there are: train, test"):
        read_media_folder(tmp_path, "validation", "image")


def test_a_file_outside_of_its_labels_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / "left" / "0.png").rename(tmp_path / "0.png")
    with pytest.raises(DataError, match="0.png: is in no folder of its label: put each file into"):
        read_media_folder(tmp_path, "train", "image")


def test_other_files_are_left_out_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.data.media.files.rank_zero_info", messages.append)
    write_pictures(tmp_path, 2)
    for name in ("notes.txt", "left/more.txt", "left/.hidden"):
        (tmp_path / name).touch()
    assert [path.name for path in media_files(tmp_path, "image")] == ["0.png", "1.png"]
    assert messages == [f"{tmp_path}: files that are no image files are left out: 2 .txt."]


def test_a_folder_of_tables_is_none_of_images(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    assert is_media_folder(tmp_path, "image")
    assert not is_media_folder(tmp_path, "audio")
    assert not is_media_folder(tmp_path / "left" / "0.png", "image")
    (tmp_path / "metadata.csv").touch()
    assert not is_media_folder(tmp_path, "image")
