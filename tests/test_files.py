"""Files are whole or not there."""

from pathlib import Path

import pytest

from beft_lightning.errors import BeftError
from beft_lightning.files import write_atomically, write_folder_atomically, write_text_atomically


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = write_text_atomically(tmp_path / "result.json", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    written = write_text_atomically(tmp_path / "deep" / "er" / "written.txt", "é")
    assert written.read_text(encoding="utf-8") == "é"
    assert written.stat().st_mode == plain.stat().st_mode


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder_atomically(tmp_path / "out", fail)
    assert list(tmp_path.iterdir()) == []
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "file").touch()

    def fill(folder: Path) -> None:
        assert not (tmp_path / "deep").exists() or not (tmp_path / "deep" / "out").exists()
        (folder / "inner").mkdir()
        (folder / "inner" / "private").touch(mode=0o600)

    out = write_folder_atomically(tmp_path / "deep" / "out", fill)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert {path.name for path in out.rglob("*")} == {"inner", "private"}
    assert out.stat().st_mode == (out / "inner").stat().st_mode == plain.stat().st_mode
    assert (out / "inner" / "private").stat().st_mode == (plain / "file").stat().st_mode


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    filled = write_folder_atomically(tmp_path / "empty", lambda folder: (folder / "new").touch())
    for taken, message in ((filled, "is not empty"), (filled / "new", "is a file")):
        with pytest.raises(BeftError, match=message):
            write_folder_atomically(taken, lambda folder: (folder / "newer").touch())
    # Somebody else may have been faster.
    with pytest.raises(BeftError, match="is not empty"):
        write_folder_atomically(tmp_path / "late", lambda folder: (tmp_path / "late" / "theirs").mkdir(parents=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "late"]
    assert [path.name for path in filled.iterdir()] == ["new"]
