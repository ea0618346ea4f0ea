"""Writing files so that a reader sees the old content or the new one, never half of it."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from beft_lightning.errors import BeftError


def write_atomically(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file in the target's folder, then rename it to ``path``.

    Args:
        path: Where the finished file shall be; missing folders are made.
        write: Called with the temporary file's path, which ends in the suffix of ``path``.

    Returns:
        ``path`` as a ``Path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes the file private; a result file gets the permissions any new file would have.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_folder_atomically(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary folder beside the target, then rename it to ``path``.

    Args:
        path: Where the finished folder shall be; missing parents are made.
        write: Called with the temporary folder's path.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        BeftError: If ``path`` is taken; see :func:`check_new_folder`.
    """
    path = check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        write(temporary)
        # Some writers make private files, and mkdtemp a private folder: a server may run as somebody else.
        for part in (temporary, *temporary.rglob("*")):
            part.chmod((0o777 if part.is_dir() else 0o666) & ~_umask())
        check_new_folder(path)  # Writing may have taken long.
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def check_new_folder(path: str | Path) -> Path:
    """Refuse a folder that holds something: nothing is ever overwritten.

    Returns:
        ``path``, absolute.

    Raises:
        BeftError: If ``path`` is a file, or a folder that is not empty.
    """
    path = Path(path).absolute()
    if path.is_dir() and any(path.iterdir()):
        raise BeftError(f"folder {path} is not empty: give a new one, or remove it first.")
    if path.exists() and not path.is_dir():
        raise BeftError(f"{path} is a file: give a folder to make.")
    return path


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_text_atomically(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8 to ``path`` in one step; see :func:`write_atomically`."""
    return write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
