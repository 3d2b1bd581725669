from __future__ import annotations

import pytest

from onnxcomp.calibration.options import Options
from onnxcomp.errors import UsageError

NAMES = {"imagenet": (0.5, 0.25)}


def test_absent_options_are_none_or_their_default() -> None:
    none = Options()
    assert (none.count("n"), none.number("s"), none.numbers("m", NAMES), none.size("c")) == (None,) * 4
    assert none.pairs("map") == {}
    assert none.text("y", "labels") == "labels"


def test_values_are_read_as_their_types() -> None:
    options = Options(
        {"n": "7", "s": "255", "m": "imagenet", "d": "1,2.5", "c": "224", "h": "320x192", "map": "x:in:0,y:b"}
    )
    assert options.count("n") == 7
    assert options.number("s") == 255.0
    assert options.numbers("m", NAMES) == (0.5, 0.25)
    assert options.numbers("d", NAMES) == (1.0, 2.5)
    assert options.size("c") == (224, 224)
    assert options.size("h") == (320, 192)
    assert options.pairs("map") == {"x": "in:0", "y": "b"}


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "²", "1e3"])
def test_a_count_is_a_whole_number_above_zero(value: str) -> None:
    with pytest.raises(UsageError, match=f"n={value} is not a whole number above zero"):
        Options({"n": value}).count("n")


@pytest.mark.parametrize("value", ["0", "nan", "inf", "x", "1,2"])
def test_a_number_is_finite_and_not_zero(value: str) -> None:
    with pytest.raises(UsageError, match=f"scale={value}"):
        Options({"scale": value}).number("scale")


def test_broken_lists_pairs_and_choices_name_their_key() -> None:
    with pytest.raises(UsageError, match="mean=1,,2"):
        Options({"mean": "1,,2"}).numbers("mean", NAMES)
    with pytest.raises(UsageError, match="crop=0"):
        Options({"crop": "0x7"}).size("crop")
    with pytest.raises(UsageError, match="map=x is not of the form"):
        Options({"map": "x"}).pairs("map")
    with pytest.raises(UsageError, match="names 'x' twice"):
        Options({"map": "x:a,x:b"}).pairs("map")
    with pytest.raises(UsageError, match=r"Did you mean nhwc\?"):
        Options({"layout": "nhcw"}).choice("layout", ("nhwc", "rgb"))
