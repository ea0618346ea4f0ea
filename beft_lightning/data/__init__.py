"""Task records, preprocessors, and DataModules of benchmarks."""

from beft_lightning.data.benchmarks.glue import GLUE_TASKS, Glue
from beft_lightning.data.benchmarks.movie_reviews import MovieReviews
from beft_lightning.data.benchmarks.prompts import PROMPT_TASKS
from beft_lightning.data.benchmarks.reading_comprehension import Drop, Squad
from beft_lightning.data.benchmarks.super_glue import SUPER_GLUE_TASKS, SuperGlue
from beft_lightning.data.datamodule import LanguageDataModule
from beft_lightning.data.media.datamodule import AudioTable, ImageTable
from beft_lightning.data.prompt_task import Prompted, PromptTask
from beft_lightning.data.table import Table
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.data.verbalizer import Verbalizer

__all__ = [
    "GLUE_TASKS",
    "PROMPT_TASKS",
    "SUPER_GLUE_TASKS",
    "AudioTable",
    "Drop",
    "Glue",
    "ImageTable",
    "LanguageDataModule",
    "MovieReviews",
    "PromptTask",
    "Prompted",
    "Squad",
    "SuperGlue",
    "Table",
    "Task",
    "TaskRecord",
    "Verbalizer",
]
