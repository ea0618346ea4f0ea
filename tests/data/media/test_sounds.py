"""Sounds become samples of the model's rate, whatever they come in, or an error says why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from beft_lightning.data.media.sounds import read_sound
from beft_lightning.errors import DataError
from tests.media import RATE, tone

TONE = tone(1, 0)


def test_all_forms_of_a_sound_have_the_same_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, RATE, subtype="FLOAT")
    content = path.read_bytes()
    forms: list[Any] = [path, str(path), content, {"bytes": content, "path": "a.wav"}, {"bytes": None, "path": path}]
    arrays: list[Any] = [TONE, TONE.astype(np.float64), {"array": TONE, "sampling_rate": RATE}, {"array": list(TONE)}]
    for form in [*forms, *arrays]:
        assert np.array_equal(read_sound(form, RATE, "here"), TONE)
    whole = (TONE * 2**15).astype(np.int16)
    assert read_sound(whole, RATE, "here") == pytest.approx(TONE, abs=2**-15)


def test_channels_are_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([TONE, np.zeros_like(TONE)], axis=1), RATE, subtype="FLOAT")
    assert read_sound(tmp_path / "a.wav", RATE, "here") == pytest.approx(TONE / 2)


def test_another_rate_is_resampled() -> None:
    """The tone of 1,800 Hz keeps its pitch and its length."""
    for rate in (8_000, 44_100):
        sound = read_sound({"array": tone(1, 0, rate=rate), "sampling_rate": rate}, RATE, "here")
        assert len(sound) == pytest.approx(0.3 * RATE, abs=1)
        assert np.abs(np.fft.rfft(sound)).argmax() / 0.3 == pytest.approx(1_800, abs=4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"no sound", "t.csv row 2: not readable as a sound"),
        ("missing.wav", "t.csv row 2: not readable as a sound"),
        (3, "t.csv row 2: no sound but 3. Give a path"),
        (TONE[:100], "t.csv row 2: a sound of 0.006 s is too short: give at least 0.05 s"),
        (TONE * np.nan, "t.csv row 2: the sound has samples that are no finite numbers"),
        (TONE[None], r"t.csv row 2: an array of float32 and shape \(1, 4800\): give samples of one channel"),
        (TONE.astype(np.int64), "t.csv row 2: an array of int64"),
    ],
)
def test_what_is_no_sound(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_sound(value, RATE, "t.csv row 2")


@pytest.mark.parametrize(
    ("missing", "rate", "message"),
    [
        ("soundfile", RATE, r"sound files need the package soundfile: pip install 'beft-lightning\[audio\]'"),
        ("soxr", 8_000, r"sounds of 8,000 samples a second .* need the package soxr: pip install"),
    ],
)
def test_a_missing_package_names_its_extra(
    missing: str, rate: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, rate)
    monkeypatch.setattr("beft_lightning.data.media.extras.find_spec", lambda module: module != missing or None)
    with pytest.raises(DataError, match=message):
        read_sound(tmp_path / "a.wav", RATE, "here")
