"""The folder whose adapters are served: looked at again and again, and trusted with nothing."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beft_lightning.checkpoint import ADAPTER_FILE
from beft_lightning.errors import BeftError, system_error
from beft_lightning.export.peft import ADAPTER_CONFIG, ADAPTER_VALUES
from beft_lightning.export.task_file import TASK_FILE
from beft_lightning.serving.reading import check_adapter_folder
from beft_lightning.serving.requests import BASE_NAME

_log = logging.getLogger(__name__)
#: What an adapter may be called: a path or a header could be made of other characters.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUFFIX = ".ckpt"
#: The files that are read in a folder.
_FILES = (ADAPTER_CONFIG, ADAPTER_VALUES, TASK_FILE, ADAPTER_FILE)


@dataclass(frozen=True)
class _Entry:
    """An entry of the folder.

    Args:
        path: Where it is.
        version: Changes when its content does.
    """

    path: Path
    version: tuple[tuple[int, int], ...]


class AdapterFolder:
    """Keeps the adapters that are served those of a folder.

    Adapters are ``NAME.ckpt``, checkpoints of fits (files, or DeepSpeed's folders), and folders ``NAME`` in PEFT's
    format. Whatever cannot be served is logged once and listed under :attr:`broken`; the others are served. If the
    folder itself disappears, what was read from it is served on.

    Args:
        folder: The folder.
        add: Adds the adapter of a name and a path, or puts it in another one's place.
        remove: Removes the adapter of a name.
    """

    def __init__(self, folder: Path, add: Callable[[str, Path], Any], remove: Callable[[str], Any]) -> None:
        self._folder = folder
        self._add, self._remove = add, remove
        self._seen: dict[str, list[_Entry]] = {}
        self._served: set[str] = set()
        #: Name -> why it is not served.
        self.broken: dict[str, str] = {}
        #: What is wrong with the folder itself.
        self.problem: str | None = None

    @property
    def served(self) -> list[str]:
        """Names of the adapters that are served, in order."""
        return sorted(self._served)

    def scan(self) -> bool:
        """Look at the folder; return whether anything has changed."""
        try:
            found = self._entries()
        except OSError as error:
            return self._report(f"{self._folder}: {error.strerror}; the adapters read before are served on")
        changed = self._report(None)
        for name in [name for name in self._seen if name not in found]:
            del self._seen[name]
            self.broken.pop(name, None)
            self._withdraw(name)
            changed = True
        for name, entries in found.items():
            if self._seen.get(name) != entries:
                self._seen[name] = entries
                self._take(name, entries)
                changed = True
        return changed

    def _report(self, problem: str | None) -> bool:
        changed = problem != self.problem
        if changed and problem:
            _log.warning(problem)
        self.problem = problem
        return changed

    def _entries(self) -> dict[str, list[_Entry]]:
        """Return the entries by the name they would have."""
        found: dict[str, list[_Entry]] = {}
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(".") or not (path.suffix == _SUFFIX or path.is_symlink() or path.is_dir()):
                continue
            name = path.name.removesuffix(_SUFFIX)
            version = tuple((s.st_mtime_ns, s.st_size) for s in map(Path.lstat, _parts(path)))
            found.setdefault(name, []).append(_Entry(path, version))
        return found

    def _take(self, name: str, entries: list[_Entry]) -> None:
        """Serve an adapter, or note why it is not served."""
        try:
            self._check(name, entries)
            self._add(name, entries[0].path)
        except Exception as error:  # whatever a file of somebody else's makes a reader raise
            explained = error if isinstance(error, BeftError) else system_error(error)
            self.broken[name] = str(explained or f"{type(error).__name__}: {error}")
            _log.warning("adapter %s is not served: %s", name, self.broken[name])
            self._withdraw(name)
        else:
            self.broken.pop(name, None)
            self._served.add(name)
            _log.info("adapter %s is served", name)

    def _withdraw(self, name: str) -> None:
        if name in self._served:
            self._served.discard(name)
            self._remove(name)

    def _check(self, name: str, entries: list[_Entry]) -> None:
        """Check the name of an entry, and that nothing of it lies elsewhere.

        Raises:
            BeftError: If it cannot be served.
        """
        if len(entries) > 1:
            both = " and ".join(entry.path.name for entry in entries)
            raise BeftError(f"{both} have one name: rename one of them.")
        if not _NAME.fullmatch(name) or name == BASE_NAME:
            raise BeftError(
                f"{name!r} is no name of an adapter: use up to 100 letters, digits, '.', '_' and '-', a letter or "
                f"digit first; {BASE_NAME!r} is the base's."
            )
        path = entries[0].path
        for part in _parts(path):
            if part.is_symlink():
                raise BeftError(f"{part.relative_to(self._folder)} is a link, which is not followed: copy the file.")
            if not (part.is_file() or (part == path and part.is_dir())):  # reading a pipe would wait for ever
                raise BeftError(f"{part.relative_to(self._folder)} is no file.")
        if path.is_dir():
            check_adapter_folder(path)


def _parts(path: Path) -> Iterator[Path]:
    """Yield an entry, and the files in it that are read if it is a folder."""
    yield path
    if path.is_dir() and not path.is_symlink():
        yield from (part for name in _FILES if (part := path / name).exists() or part.is_symlink())
