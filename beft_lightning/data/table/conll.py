"""Files in the style of CoNLL: a word and its tag in each line, and an empty line between sentences."""

from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from beft_lightning.errors import DataError

#: The columns of the table.
TOKENS, TAGS = "tokens", "tags"
#: First word of the lines between documents.
_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path) -> Dataset:
    """Read the sentences of a file.

    In each line, white space separates the word, any further columns, and the tag.

    Returns:
        A row for each sentence, with lists of ``tokens`` and ``tags``; without ``tags`` if there are words alone.

    Raises:
        DataError: If lines have different numbers of columns, or the file is not UTF-8.
    """
    columns = 0
    sentences: list[tuple[list[str], list[str]]] = []
    begun = False
    for where, fields in _lines(path):
        if not fields or fields[0] == _DOCUMENT:
            begun = False
            continue
        columns = columns or len(fields)
        if len(fields) != columns:
            raise DataError(
                f"{where}: {len(fields)} columns instead of {columns}. Each line holds a word and, behind white space, "
                "its tag; an empty line ends a sentence."
            )
        if not begun:
            sentences.append(([], []))
            begun = True
        sentences[-1][0].append(fields[0])
        sentences[-1][1].append(fields[-1])
    content = {TOKENS: [words for words, _ in sentences], TAGS: [tags for _, tags in sentences]}
    return Dataset.from_dict(content if columns != 1 else {TOKENS: content[TOKENS]})


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the fields of each line behind its place."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield f"{path}:{number}", line.split()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not readable as UTF-8 text ({error}).") from error
