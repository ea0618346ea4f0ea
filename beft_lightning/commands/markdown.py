"""Tables in Markdown."""

import pandas as pd


def markdown_table(frame: pd.DataFrame) -> str:
    """Return a table in Markdown, one line for each row, without padding.

    ``DataFrame.to_markdown`` needs the package tabulate, and pads the columns.

    Args:
        frame: Text in every cell; the index is left out.
    """
    rows = [list(frame.columns), *frame.values.tolist()]
    first, *others = ["".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in rows]
    return "\n".join([first, "|---" * len(frame.columns) + "|", *others]) + "\n"
