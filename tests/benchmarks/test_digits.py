"""The study of digits in small: what it reports, and that it goes on where it was stopped."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import digits


def test_a_climb_looks_at_what_it_needs_and_ends_beside_worse_places() -> None:
    values = [0, 1, 3, 5, 2, 2, 9]
    seen = set()

    def value(place: int) -> float:
        seen.add(place)
        return values[place]

    assert digits.climb(value, 1, len(values)) == 3
    assert seen == {0, 1, 2, 3, 4}
    assert digits.climb([0, 1, 1, 0].__getitem__, 1, 4) == 2  # of equals the higher place
    with pytest.raises(ValueError, match="more are needed"):
        digits.climb(value, 5, len(values))


def test_rates_are_chosen_on_other_images_than_those_reported_and_runs_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = "--seeds 1 --sizes 10 --ways head value --steps 2 --epochs 1".split()
    # Two steps cannot tell which rate is best: the first one stands.
    monkeypatch.setattr(digits, "climb", lambda value, start, count: (value(start), start)[1])
    digits.main(["--out", str(tmp_path), *arguments])
    table = (tmp_path / "results.md").read_text().splitlines()
    assert table[0] == "| trained | parameters | rate | 10 images |"
    rows = [line.split(" | ")[:3] for line in table[2:]]
    assert rows == [["| head only", "325", "0.03"], ["| value bias", "581", "0.03"]]
    chosen = {f"{way}_50_{seed}_0.03.json" for way in ("head", "value") for seed in (0, 101, 102)}
    assert {path.name for path in (tmp_path / "choice").iterdir()} == chosen
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"head_10_1_0.03.json", "value_10_1_0.03.json"}
    study = digits.Study(tmp_path, steps=2)
    ids = {name: set(batch["id"].tolist()) for name, batch in study.examples.items()}
    assert {name: len(each) for name, each in ids.items()} == {"pool": 300, "choice": 200, "report": 396}
    pixels = {
        name: {tuple(image.flatten().tolist()) for image in batch["pixel_values"]}
        for name, batch in study.examples.items()
    }
    assert not pixels["choice"] & pixels["report"]
    assert not pixels["pool"] & pixels["report"]

    def forbidden(*_: Any) -> None:
        raise AssertionError("a run was repeated")

    monkeypatch.setattr(digits.Study, "fit", forbidden)
    digits.main(["--out", str(tmp_path), *arguments])
    assert (tmp_path / "results.md").read_text().splitlines() == table
