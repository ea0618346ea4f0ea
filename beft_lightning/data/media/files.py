"""Folders of image and sound files."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets import ClassLabel, Dataset
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.data.table.files import FORMATS
from beft_lightning.errors import DataError

#: What is in a column -> the suffixes of its files.
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "image": (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    "audio": (".aif", ".aiff", ".flac", ".mp3", ".ogg", ".wav"),
}
_SPLITS = ("train", "validation", "test")


def media_files(folder: Path, media: str) -> list[Path]:
    """Return the files of a folder and of those in it, sorted; how many others there are is logged.

    Args:
        folder: The folder.
        media: ``image`` or ``audio``.
    """
    files = sorted(path for path in _visible(folder) if path.is_file())
    found = [path for path in files if path.suffix.lower() in SUFFIXES[media]]
    others = Counter(path.suffix.lower() for path in files) - Counter(path.suffix.lower() for path in found)
    if found and others:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items()))
        rank_zero_info(f"{folder}: files that are no {media} files are left out: {kinds}.")
    return found


def _visible(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder and in those in it, without what programs leave there for themselves."""
    for path in folder.rglob("*"):
        if not any(name.startswith(".") or name == "__MACOSX" for name in path.relative_to(folder).parts):
            yield path


def is_media_folder(source: str | Path, media: str) -> bool:
    """Return whether a source is a folder of image or sound files, and not of tables that list them."""
    folder = Path(source)
    if not folder.is_dir() or any(path.suffix.lower() in (*FORMATS, ".arrow") for path in folder.iterdir()):
        return False
    return any(path.suffix.lower() in SUFFIXES[media] for path in _visible(folder))


def read_media_folder(folder: Path, split: str, media: str) -> Dataset:
    """Read a folder with a folder of files for each label.

    Args:
        folder: The folder. If it has a folder for each split, named ``train``, ``validation`` or ``test``, the labels'
            folders are in these.
        split: The split wanted.
        media: ``image`` or ``audio``, which is the column's name, too.

    Returns:
        A row for each file, with its path from the folder on and its ``label``.

    Raises:
        DataError: If there is no folder of the split, or a file is in no label's folder.
    """
    root = folder
    if splits := [name for name in _SPLITS if (folder / name).is_dir()]:
        if split not in splits:
            raise DataError(f"{folder}: no folder {split!r}; there are: {', '.join(splits)}.")
        root = folder / split
    paths = media_files(root, media)
    if loose := [path for path in paths if path.parent == root]:
        raise DataError(
            f"{loose[0]}: is in no folder of its label: put each file into {root}/LABEL/, or list paths and "
            "labels in a CSV file."
        )
    names = sorted({path.relative_to(root).parts[0] for path in paths})
    return Dataset.from_dict(
        {
            media: [str(path.relative_to(folder)) for path in paths],
            "label": [names.index(path.relative_to(root).parts[0]) for path in paths],
        }
    ).cast_column("label", ClassLabel(names=names))
