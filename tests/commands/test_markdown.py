"""Tables in Markdown."""

import pandas as pd

from beft_lightning.commands.markdown import markdown_table


def test_cells_are_not_padded() -> None:
    frame = pd.DataFrame({"name": ["a", "longer"], "value": ["1", ""]})
    assert markdown_table(frame) == "| name | value |\n|---|---|\n| a | 1 |\n| longer | |\n"
