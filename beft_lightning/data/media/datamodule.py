"""The DataModules for images and sounds of one's own."""

from abc import ABC
from pathlib import Path
from typing import Any, ClassVar

from datasets import Audio, Dataset, Image

from beft_lightning.data.media.files import is_media_folder, read_media_folder
from beft_lightning.data.media.kind import MediaKind
from beft_lightning.data.media.task import AudioTask, ImageTask, MediaTask
from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.file_data import FileData
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError
from beft_lightning.processors import load_processor, make_processor


class MediaTable(FileData, ABC):
    """Images or sounds, each with one label, in files of one's own.

    Args:
        column: Column of the images or sounds.
        label: Column of the label.
        random_init: Make the processor from the backbone's config, as the model is.
        adjust: Fields of the task's record to set.
        kwargs: See :class:`~beft_lightning.data.table.file_data.FileData`.
    """

    #: The class of the task's record.
    record: ClassVar[type[MediaTask]]

    def __init__(
        self, column: str, label: str, random_init: bool, adjust: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.column = column
        self.random_init = random_init

        def understand(table: Dataset) -> tuple[MediaKind, TaskRecord]:
            if column == label:
                raise DataError(f"--data.{self.record.media} and --data.label are both {label!r}: give two columns.")
            kind = MediaKind(Columns.given([column], [label]), f"{kwargs['train']}", self.record)
            return kind, kind.make_task(table, **(adjust or {}))

        super().__init__(
            understand=understand,
            max_length=None,
            padding="longest",
            demonstrations=0,
            demonstration_set="per_example",
            calibrate=False,
            **kwargs,
        )

    def read_source(self, source: str | Path, split: str) -> Dataset:
        """Read all rows of a source, images and sounds as files and bytes."""
        if is_media_folder(source, self.record.media):
            return read_media_folder(Path(source), split, self.record.media)
        table = super().read_source(source, split)
        feature = table.features.get(self.column)
        if isinstance(feature, Image | Audio):
            return table.cast_column(self.column, type(feature)(decode=False))
        return table

    def load_processor(self) -> Any:
        """Load the backbone's image processor or feature extractor."""
        load = make_processor if self.random_init else load_processor
        return load(self.task.kind, self.tokenizer_name)


class ImageTable(MediaTable):
    """Images with one label each, in files of one's own.

    A source is a folder with a folder of images for each label, a table (CSV, TSV, JSON, JSONL, Parquet, Arrow) with
    paths, which are relative to its own folder, or with images of ``datasets``, a folder of ``save_to_disk``, or a hub
    id. Images are read when their batch is made; each is read once before, so that one that cannot be read is an error
    before the first step.

    Args:
        tokenizer: The backbone's hub id or folder, for its image processor.
        train: Source of the training rows. The label names are found there.
        validation: Source of the rows to evaluate on during training.
        test: Source of the rows for ``test``; by default the same as for validation.
        image: Column of the images: paths, bytes, or images of ``datasets``.
        label: Column of the label.
        dev_share: Without ``validation``: the share of the training rows, or from 1 on their number, that is not
            trained on but evaluated on; by default 0.1. The rows are drawn with the seed, from each label alike.
        metrics: Names of the metrics to report, the main one first; by default accuracy and macro-F1.
        random_init: Make the image processor from the backbone's config, as the model is; on the command line it
            follows the model's option.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.
    """

    record = ImageTask

    def __init__(
        self,
        tokenizer: str,
        train: str | Path | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        image: str = "image",
        label: str = "label",
        dev_share: float | None = None,
        metrics: list[str] | None = None,
        random_init: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            column=image,
            label=label,
            random_init=random_init,
            adjust=None,
            tokenizer=tokenizer,
            train=train,
            validation=validation,
            test=test,
            dev_share=dev_share,
            metrics=metrics,
            **kwargs,
        )


class AudioTable(MediaTable):
    """Sounds with one label each, in files of one's own.

    Sources are as for :class:`ImageTable`, with sound files (WAV, FLAC, OGG, MP3) or sounds of ``datasets``. Sounds of
    another rate than the model's are resampled, and channels are averaged.

    Args:
        tokenizer: The backbone's hub id or folder, for its feature extractor.
        train: Source of the training rows. The label names are found there.
        validation: Source of the rows to evaluate on during training.
        test: Source of the rows for ``test``; by default the same as for validation.
        audio: Column of the sounds: paths, bytes, or sounds of ``datasets``.
        label: Column of the label.
        dev_share: Without ``validation``: the share of the training rows, or from 1 on their number, that is not
            trained on but evaluated on; by default 0.1. The rows are drawn with the seed, from each label alike.
        metrics: Names of the metrics to report, the main one first; by default accuracy and macro-F1.
        max_seconds: Longer sounds are cut behind so many seconds.
        random_init: Make the feature extractor from the backbone's config, as the model is; on the command line it
            follows the model's option.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.
    """

    record = AudioTask

    def __init__(
        self,
        tokenizer: str,
        train: str | Path | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        audio: str = "audio",
        label: str = "label",
        dev_share: float | None = None,
        metrics: list[str] | None = None,
        max_seconds: float = 30.0,
        random_init: bool = False,
        **kwargs: Any,
    ) -> None:
        if max_seconds <= 0:
            raise DataError(f"max_seconds {max_seconds} must be more than 0.")
        super().__init__(
            column=audio,
            label=label,
            random_init=random_init,
            adjust={"max_seconds": max_seconds},
            tokenizer=tokenizer,
            train=train,
            validation=validation,
            test=test,
            dev_share=dev_share,
            metrics=metrics,
            **kwargs,
        )
