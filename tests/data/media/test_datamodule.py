"""Images and sounds of one's own: sources, labels, batches and errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Audio, Dataset, Image

from beft_lightning.__main__ import main
from beft_lightning.data import AudioTable, ImageTable
from beft_lightning.errors import BackboneError, DataError
from tests.media import RATE, save_media_backbone, write_pictures, write_tones


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_media_backbone(tmp_path_factory.mktemp("vit"), "vit")


@pytest.fixture(scope="session")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_media_backbone(tmp_path_factory.mktemp("wav2vec2"), "wav2vec2")


def table(folder: Path, names: list[str], column: str = "image") -> pd.DataFrame:
    frame = pd.DataFrame({column: names, "label": [Path(name).parent.name for name in names], "id": range(len(names))})
    frame.to_csv(folder / "train.csv", index=False)
    return frame


def pixels(data: ImageTable, split: str = "train") -> dict[int, Any]:
    """Pixels and label of each image by its number, as the batches have them."""
    data.setup("fit")
    features = data._splits[split]
    batch = data.preprocessor.collate_training(features)
    values = zip(batch["pixel_values"], batch["labels"].tolist(), strict=True)
    return dict(zip(batch["id"].tolist(), values, strict=True))


def test_every_source_gives_the_same_images(vit: str, tmp_path: Path) -> None:
    names = sorted(write_pictures(tmp_path / "pictures"))
    frame = table(tmp_path / "pictures", names)
    options: dict[str, Any] = {"batch_size": 4, "seed": 0, "dev_share": 4}
    by_path = pixels(ImageTable(vit, tmp_path / "pictures" / "train.csv", **options))
    assert len(by_path) == 12
    assert by_path[min(by_path)][0].shape == (3, 16, 16)
    (tmp_path / "pictures" / "train.csv").rename(tmp_path / "list.csv")
    contents = {"image": [str(tmp_path / "pictures" / name) for name in names], "label": [*frame.label]}
    encoded = Dataset.from_dict(contents).cast_column("image", Image())
    encoded.save_to_disk(str(tmp_path / "saved"))
    Dataset.from_dict(contents | {"image": [Path(path).read_bytes() for path in contents["image"]]}).to_parquet(
        tmp_path / "bytes.parquet"
    )
    for source in ("pictures", "saved", "bytes.parquet"):
        data = ImageTable(vit, tmp_path / source, **options)
        assert data.task.labels == ("left", "right")
        found = pixels(data)
        assert found.keys() == by_path.keys()
        for number, (values, label) in found.items():
            assert torch.equal(values, by_path[number][0])
            assert label == by_path[number][1]


def test_the_shares_are_drawn_from_each_label_alike(vit: str, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    data = ImageTable(vit, tmp_path, batch_size=4, seed=0, dev_share=0.5)
    held_out = pixels(data, "validation")
    assert [label for _, label in held_out.values()].count(0) == 4
    assert len(pixels(data)) == 8


def test_sounds_are_filled_up_and_cut(wav2vec2: str, tmp_path: Path) -> None:
    names = write_tones(tmp_path, rate=8_000)
    table(tmp_path, names, "audio")
    data = AudioTable(wav2vec2, tmp_path / "train.csv", batch_size=4, seed=0, max_seconds=0.3)
    data.setup("fit")
    assert data.task.labels == ("high", "low")
    assert {feature["length"] for feature in data._splits["train"]} == {3_200, 4_000, 4_800}
    batch = next(iter(data.train_dataloader()))
    assert batch["input_values"].shape[0] == 4
    assert batch["input_values"].shape[1] <= 0.3 * RATE
    assert set(batch) == {"input_values", "labels", "id"}
    contents = [{"bytes": (tmp_path / name).read_bytes(), "path": None} for name in names]
    saved = Dataset.from_dict({"audio": contents, "label": [Path(name).parent.name for name in names]})
    saved.cast_column("audio", Audio()).save_to_disk(str(tmp_path / "saved"))
    again = AudioTable(wav2vec2, tmp_path / "saved", batch_size=4, seed=0, max_seconds=0.3)
    again.setup("fit")
    assert [feature["length"] for feature in again._splits["train"]] == [f["length"] for f in data._splits["train"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": lambda f: [*f.image[:-1], "right/none.png"]},
            r"train.csv row 16: not readable as an .*none.png",
        ),
        ({"image": lambda f: [*f.image[:-1], "train.csv"]}, "train.csv row 16: not readable as an image"),
        ({"image": lambda f: [*f.image[:-1], None]}, "train.csv row 16: column 'image' is empty"),
        ({"label": lambda f: f.id + 0.5}, "holds numbers with a fraction, and labels of images and sounds are classes"),
        ({"label": lambda f: ["left"] * 16}, "every row has the label 'left'"),
        ({"image": None}, "no column 'image'; .* Set --data.image and --data.label to columns of the table"),
    ],
)
def test_a_table_that_cannot_be_learnt(change: dict[str, Any], message: str, vit: str, tmp_path: Path) -> None:
    """All before the first step: the images are read when the run is set up."""
    frame = table(tmp_path, write_pictures(tmp_path))
    ((column, make),) = change.items()
    frame = frame.drop(columns=column) if make is None else frame.assign(**{column: make(frame)})
    frame.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(DataError, match=message):
        ImageTable(vit, tmp_path / "train.csv", batch_size=4, seed=0, dev_share=2).setup("fit")


def test_options_that_do_not_go_together(vit: str, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    with pytest.raises(DataError, match="ImageTable needs a file, folder or data set to train on"):
        ImageTable(vit)
    with pytest.raises(DataError, match="--data.image and --data.label are both 'label': give two columns"):
        ImageTable(vit, tmp_path, image="label")
    with pytest.raises(DataError, match="max_seconds 0 must be more than 0"):
        AudioTable(vit, tmp_path, max_seconds=0)
    (Path(vit) / "preprocessor_config.json").rename(tmp_path / "away.json")
    try:
        with pytest.raises(BackboneError, match=r"cannot load its preprocessor_config.json, which says how images are"):
            ImageTable(vit, tmp_path, batch_size=4).setup("fit")
    finally:
        (tmp_path / "away.json").rename(Path(vit) / "preprocessor_config.json")


def test_random_weights_need_no_processor_on_the_command_line(vit: str, tmp_path: Path) -> None:
    """The option of the model goes to the data, and predictions of a folder name its files."""
    write_pictures(tmp_path / "pictures")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((Path(vit) / "config.json").read_bytes())
    arguments = (
        f"fit --data ImageTable --data.train {tmp_path}/pictures --data.batch_size 4 --data.dev_share 4 "
        "--model.tune value --trainer.max_epochs 1 --trainer.accelerator cpu"
    )
    random = ["--model.backbone", f"{tmp_path}/bare", "--model.random_init", "true"]
    assert main([*arguments.split(), *random, "--trainer.default_root_dir", f"{tmp_path}/random"]) == 0
    tuned = ["--model.backbone", vit, "--trainer.default_root_dir", f"{tmp_path}/tuned"]
    assert main([*arguments.split(), *tuned]) == 0
    out = tmp_path / "predicted.jsonl"
    predict = ["predict", "--ckpt_path", str(next((tmp_path / "tuned").rglob("last.ckpt"))), "--out", str(out)]
    assert main([*predict, "--input", str(tmp_path / "pictures")]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows][:2] == ["left/0.png", "left/10.png"]
    assert all(set(row["probabilities"]) == {"left", "right"} for row in rows)
    (tmp_path / "list.csv").write_text("image\npictures/left/10.png\n")
    assert main([*predict, "--input", str(tmp_path / "list.csv")]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["image"] == "pictures/left/10.png"
    assert row["probabilities"] == pytest.approx(rows[1]["probabilities"], abs=1e-5)
    assert np.isfinite([*row["probabilities"].values()]).all()
