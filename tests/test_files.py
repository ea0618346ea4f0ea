"""Files are whole or not there."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from beft_lightning.errors import BeftError
from beft_lightning.files import (
    check_new_folder,
    check_output_folder,
    remove_unfinished,
    write_atomically,
    write_folder_atomically,
    write_text_atomically,
)


def die() -> None:
    """End this process as a kill -9, a cluster's last word or a lack of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(action: Callable[[], object]) -> None:
    """Run ``action`` in a process of its own, which has to kill itself."""
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def write_half(path: Path) -> None:
    (path / "file" if path.is_dir() else path).write_text("half")
    die()


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = write_text_atomically(tmp_path / "result.json", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_has_come_while_a_new_file_was_written_stays(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        target.write_text("another's")

    with pytest.raises(BeftError, match="model.gguf exists"):
        write_atomically(target, write, new=True)
    assert target.read_text() == "another's"
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


def test_a_killed_write_keeps_the_old_content_and_the_next_one_clears_up(tmp_path: Path) -> None:
    target = write_text_atomically(tmp_path / "result.json", "old")
    killed(lambda: write_atomically(target, write_half))
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_text_atomically(target, "new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_killed_rename_leaves_the_old_content_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_text_atomically(tmp_path / "result.json", "old")
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: die())
    killed(lambda: write_text_atomically(target, "new"))
    assert target.read_text() == "old"

    def rename_and_die(*paths: Path) -> None:
        replace(*paths)
        die()

    monkeypatch.setattr(os, "replace", rename_and_die)
    killed(lambda: write_text_atomically(target, "new"))
    assert target.read_text() == "new"


def test_a_killed_folder_is_not_there_and_the_next_one_clears_up(tmp_path: Path) -> None:
    """An exported model would be gigabytes that nobody sees."""
    killed(lambda: write_folder_atomically(tmp_path / "out", write_half))
    (left,) = tmp_path.iterdir()
    assert left.name != "out"
    write_folder_atomically(tmp_path / "another", lambda folder: (folder / "file").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_what_a_live_process_writes_is_left_alone(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("slow")
        write_text_atomically(tmp_path / "quick.txt", "quick")  # the same process
        process = multiprocessing.get_context("fork").Process(target=remove_unfinished, args=(tmp_path,))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert path.read_text() == "slow"

    write_atomically(tmp_path / "slow.txt", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick.txt", "slow.txt"]


def test_only_our_own_folders_are_cleared(tmp_path: Path) -> None:
    mine = [tmp_path / ".hidden-abc", tmp_path / "beft-unfinished-abc"]
    for folder in mine:
        folder.mkdir()
    write_text_atomically(tmp_path / "result.json", "new")
    assert all(folder.is_dir() for folder in mine)


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut could leave an empty file under the right name."""
    calls: list[tuple[str, int]] = []
    replace, fsync = os.replace, os.fsync

    def spy_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        calls.append(("replace", source.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    target = write_text_atomically(tmp_path / "result.json", "new")
    file, folder = target.stat().st_ino, tmp_path.stat().st_ino
    assert calls == [("fsync", file), ("replace", file), ("fsync", folder)]

    calls.clear()
    out = write_folder_atomically(tmp_path / "out", lambda folder: (folder / "file").touch())
    assert calls == [("fsync", path.stat().st_ino) for path in (out / "file", out, tmp_path)]


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(*arguments: object, **options: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("filelock.FileLock.acquire", no_lock)
    assert write_text_atomically(tmp_path / "result.json", "new").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_links_are_followed_if_they_lead_somewhere(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    for check in (check_output_folder, check_new_folder):
        for path in (link, link / "below"):
            with pytest.raises(BeftError, match="link is a link to .*real, which does not exist"):
                check(path)
    (tmp_path / "real").mkdir()
    assert check_output_folder(link / "below") == tmp_path / "real" / "below"
    assert write_folder_atomically(link, lambda folder: (folder / "new").touch()) == tmp_path / "real"
    assert (link / "new").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_place_that_cannot_be_written_to_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BeftError, match="file is a file: give a folder"):
        check_output_folder(tmp_path / "file" / "below")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # the rights of root are unlimited
    with pytest.raises(BeftError, match="cannot be written to"):
        check_output_folder(tmp_path / "out" / "below")
    assert not (tmp_path / "out").exists()
