"""Texts joined into rows of one length."""

from collections.abc import Sequence

from beft_lightning.data.packed_options import EncodedOptions


def encode_text(ids: Sequence[int]) -> EncodedOptions:
    """Return a text whose tokens are all scored but the first, which nothing precedes.

    Args:
        ids: Its tokens, at least two.
    """
    return EncodedOptions(tuple(ids[:-1]), (tuple(ids[-1:]),), (1,))


def pack_texts(texts: Sequence[Sequence[int]], columns: int) -> list[EncodedOptions]:
    """Join texts into rows.

    A text that reaches beyond a row goes on in the next one, behind its last token of the row before, so that each
    token but a text's first is scored once. In a row, texts are like options without a prompt: each sees itself alone,
    and its positions begin with 0.

    Args:
        texts: The tokens of each text, at least two.
        columns: Most tokens of a row to run. The last token of each text predicts nothing and is not run.

    Returns:
        The rows; all but the last one have ``columns`` tokens.
    """
    rows: list[list[tuple[int, ...]]] = []
    room = 0
    for ids in texts:
        begin = 0
        while begin < len(ids) - 1:
            if not room:
                rows.append([])
                room = columns
            piece = tuple(ids[begin : begin + room + 1])
            rows[-1].append(piece)
            begin += len(piece) - 1
            room -= len(piece) - 1
    return [
        EncodedOptions((), tuple(pieces), (1,) * len(pieces)) if len(pieces) > 1 else encode_text(pieces[0])
        for pieces in rows
    ]
