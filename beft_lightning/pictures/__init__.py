"""Pictures of scores, fits and comparisons: functions that make a figure of data, and the files of a figure.

Matplotlib is imported in this package only.
"""

from beft_lightning.pictures.comparison import accuracy_by_size, comparison_curves, results_by_method
from beft_lightning.pictures.fit import learning_curves
from beft_lightning.pictures.race import race_curves
from beft_lightning.pictures.scores import score_picture
from beft_lightning.pictures.style import save_picture

__all__ = [
    "accuracy_by_size",
    "comparison_curves",
    "learning_curves",
    "race_curves",
    "results_by_method",
    "save_picture",
    "score_picture",
]
