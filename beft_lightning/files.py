"""Write files and folders in one step: a reader sees the old content or the new one, also after a crash."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from beft_lightning.errors import BeftError

#: How the name of a folder with unfinished content begins.
_UNFINISHED = ".beft-unfinished-"
#: Locked in that folder by the process that writes, for as long as it lives.
_LOCK = "lock"


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON can hold it: ``None`` if it is not finite."""
    return value if math.isfinite(value) else None


def from_here(path: str | Path) -> str:
    """Return a path as it is shown: below the working directory without that, any other as it is.

    Args:
        path: The path; one of a remote store is a text.

    >>> from_here(Path.cwd() / "runs" / "last.ckpt"), from_here("s3://store/last.ckpt")
    ('runs/last.ckpt', 's3://store/last.ckpt')
    """
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else str(path)


def write_atomically(path: str | Path, write: Callable[[Path], None], *, new: bool = False) -> Path:
    """Let ``write`` fill a temporary file beside the target, then rename it to ``path``.

    The content is on the disk before it gets its name, so that neither a killed process nor a power cut leaves half a
    file.

    Args:
        path: Name of the finished file; missing folders are made.
        write: Called with the temporary file's path, which ends in the suffix of ``path``.
        new: Overwrite nothing.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        BeftError: If ``path`` has to be new and is taken; see :func:`check_new_file`.
    """
    path = Path(path)
    with _unfinished(path.parent) as folder:
        temporary = folder / f"new{path.suffix}"
        write(temporary)
        _finish(temporary)
        if new:
            check_new_file(path, path.suffix)  # Writing may have taken long.
        temporary.replace(path)
    _sync(path.parent)
    return path


def write_folder_atomically(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary folder beside the target, then rename it to ``path``.

    Args:
        path: Name of the finished folder; missing parents are made.
        write: Called with the temporary folder's path.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        BeftError: If ``path`` is taken; see :func:`check_new_folder`.
    """
    path = check_new_folder(path)
    with _unfinished(path.parent) as folder:
        temporary = folder / "new"
        temporary.mkdir()
        write(temporary)
        # From the inside out, so that a folder is complete when it is synced.
        for part in (*sorted(temporary.rglob("*"), reverse=True), temporary):
            _finish(part)
        check_new_folder(path)  # Writing may have taken long.
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    _sync(path.parent)
    return path


def write_text_atomically(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8 to ``path`` in one step; see :func:`write_atomically`."""
    return write_atomically(path, lambda temporary: _write_text(temporary, text))


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that have died in the middle of writing left in a folder.

    Content whose process still runs, on any machine that shares the folder, stays.
    """
    for unfinished in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), FileLock(unfinished / _LOCK, blocking=False):
            shutil.rmtree(unfinished, ignore_errors=True)


def check_output_folder(path: str | Path) -> Path:
    """Check that ``path`` is a folder to write to, or can become one.

    Returns:
        ``path``, absolute and without links.

    Raises:
        BeftError: If a file or a link to nowhere is in the way, or this user may not write there.
    """
    path = Path(path)
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            raise BeftError(
                f"{part} is a link to {part.readlink()}, which does not exist: make it, or remove the link."
            )
        if part.exists():
            if not part.is_dir():
                raise BeftError(f"{part} is a file: give a folder.")
            if not os.access(part, os.W_OK):
                raise BeftError(f"folder {part} cannot be written to: get the rights, or give another place.")
            break
    return path.resolve()


def check_new_folder(path: str | Path) -> Path:
    """Check that ``path`` can become a folder without overwriting anything.

    Returns:
        ``path``, absolute and without links.

    Raises:
        BeftError: If ``path`` is a folder that is not empty, or see :func:`check_output_folder`.
    """
    path = check_output_folder(path)
    if path.is_dir() and any(path.iterdir()):
        raise BeftError(f"folder {path} is not empty: give a new one, or remove it first.")
    return path


def check_new_file(path: str | Path, suffix: str) -> Path:
    """Check that ``path`` can become a file without overwriting anything.

    Args:
        path: Name of the file.
        suffix: How it has to end.

    Raises:
        BeftError: If it ends otherwise, is taken, or its folder is no place to write; see :func:`check_output_folder`.
    """
    path = Path(path)
    if path.suffix != suffix:
        raise BeftError(f"{path}: give the name of a file that ends in {suffix}.")
    if path.exists() or path.is_symlink():
        raise BeftError(f"{path} exists: give a new name, or remove it first.")
    check_output_folder(path.parent)
    return path


@contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` for unfinished content, which is removed at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(parent)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=_UNFINISHED))
    lock = FileLock(folder / _LOCK)
    try:
        # A file system without locks is no reason not to write; nobody then removes the folder after a crash.
        with suppress(OSError):
            lock.acquire(blocking=False)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _finish(path: Path) -> None:
    """Give a file or folder the permissions of any new one, and wait until it is on the disk."""
    # mkstemp and some writers make private files: a server may run as somebody else.
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
