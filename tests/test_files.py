"""Files are whole or not there."""

from pathlib import Path

import pytest

from beft_lightning.files import write_atomically, write_text_atomically


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
