from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from calibration_signatures import takes
from PIL import Image

from onnxcomp.calibration import images
from onnxcomp.calibration.check import checked
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.spec import open_spec
from onnxcomp.errors import DataError, UnavailableError, UsageError
from onnxcomp.model.signature import Signature

NCHW = takes(x=("float32", ("N", 3, 8, 8)))
FREE = takes(x=("float32", ("N", 3, "H", "W")))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def painted(folder: Path, name: str, size: tuple[int, int] = (12, 10), seed: int = 0, mode: str = "RGB") -> Path:
    """An image of random pixels, `size` being width and height."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def opened(folder: Path, model: Signature, query: str = "") -> Reader:
    return checked(open_spec(f"images:{folder}" + (f"?{query}" if query else ""), model), model)


def only(folder: Path, model: Signature, query: str = "") -> np.ndarray:
    (feed,) = opened(folder, model, query)
    return feed["x"]


def test_pixels_are_resized_by_the_short_side_cropped_in_the_centre_and_normalised(tmp_path: Path) -> None:
    image = Image.open(painted(tmp_path, "a.png", (31, 20)))
    resized = image.resize((15, 10), Image.Resampling.BILINEAR)  # the short side 20 becomes 10, and int(31 / 2) = 15
    expected = (np.asarray(resized)[1:9, 4:12] / 255.0 - MEAN) / STD  # round(3.5) = 4, as torchvision rounds
    found = only(tmp_path, NCHW, "resize=10&mean=imagenet&std=imagenet")
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected, rtol=0, atol=2e-6)


def test_without_resize_the_image_just_covers_the_crop(tmp_path: Path) -> None:
    path = painted(tmp_path, "a.png", (32, 16))
    expected = np.asarray(Image.open(path).resize((16, 8), Image.Resampling.BICUBIC))[:, 4:12] / 255
    np.testing.assert_allclose(only(tmp_path, NCHW, "interpolation=bicubic")[0].transpose(1, 2, 0), expected, atol=1e-6)
    wide = takes(x=("float32", ("N", 3, 4, 30)))
    assert only(tmp_path, wide).shape == (1, 3, 4, 30)


def test_size_layout_and_colours_come_from_the_input(tmp_path: Path) -> None:
    path = painted(tmp_path, "a.png", (8, 8))
    pixels = np.asarray(Image.open(path))
    np.testing.assert_array_equal(only(tmp_path, takes(x=("uint8", (1, 8, 8, 3))))[0], pixels)
    np.testing.assert_array_equal(only(tmp_path, takes(x=("uint8", (1, 8, 8, 3))), "color=bgr")[0], pixels[..., ::-1])
    gray = np.asarray(Image.open(path).convert("L"))
    np.testing.assert_array_equal(only(tmp_path, takes(x=("uint8", (1, 1, 8, 8))))[0, 0], gray)
    assert only(tmp_path, takes(x=("float16", (1, 3, 8, 8)))).dtype == np.float16


def test_what_the_model_leaves_open_is_said(tmp_path: Path) -> None:
    painted(tmp_path, "a.png")
    reader = opened(tmp_path, FREE)
    assert next(iter(reader))["x"].shape == (1, 3, 224, 224)
    assert "224 was taken" in reader.notes[0]
    assert opened(tmp_path, FREE, "crop=9x7").notes == ()
    assert only(tmp_path, FREE, "crop=9x7").shape == (1, 3, 9, 7)
    unknown = opened(tmp_path, takes(x=("float32", ("a", "b", "c", "d"))), "crop=8")
    assert "nchw was taken" in unknown.notes[0]


def test_every_mode_of_image_is_read(tmp_path: Path) -> None:
    for mode in ("RGBA", "P", "L", "1", "LA"):
        painted(tmp_path, f"{mode}.png", mode=mode)
    painted(tmp_path, "cmyk.jpg", mode="CMYK")
    (tmp_path / "notes.txt").write_text("not an image")
    assert len(list(opened(tmp_path, NCHW))) == 6


def test_labels_come_from_the_leading_digits_of_the_name(tmp_path: Path) -> None:
    painted(tmp_path, "0012_n01532829.jpg")
    painted(tmp_path, "0003.png")
    reader = opened(tmp_path, NCHW, "labels=name")
    assert reader.labels is not None
    assert reader.labels.tolist() == [3, 12]
    painted(tmp_path, "cat.png")
    with pytest.raises(DataError, match=r"cat.png: labels=name wants"):
        opened(tmp_path, NCHW, "labels=name")


def test_labels_come_from_sorted_folders(tmp_path: Path) -> None:
    for name in ("dog/a.png", "cat/b.png", "dog/c.PNG"):
        painted(tmp_path, name)
    reader = opened(tmp_path, NCHW, "labels=folder")
    assert reader.labels is not None
    assert reader.labels.tolist() == [0, 1, 1]
    assert reader.name == f"images:{tmp_path.name}"
    with pytest.raises(DataError, match=r"no images in it\n.*labels=folder"):
        opened(tmp_path, NCHW)


def test_n_images_are_spread_evenly_so_that_sorted_classes_are_all_there(tmp_path: Path) -> None:
    for i in range(6):
        painted(tmp_path, f"{i // 2}_{i}.png", seed=i)
    reader = opened(tmp_path, NCHW, "n=3&labels=name")
    assert reader.labels is not None
    assert reader.labels.tolist() == [0, 1, 2]
    more = opened(tmp_path, NCHW, "n=9")
    assert len(more) == 6
    assert "all are used" in more.notes[0]


def test_a_fixed_batch_takes_several_images_and_leaves_the_rest_out(tmp_path: Path) -> None:
    for i in range(5):
        painted(tmp_path, f"{i}.png", seed=i)
    reader = opened(tmp_path, takes(x=("float32", (2, 3, 8, 8))), "labels=name")
    assert [feed["x"].shape[0] for feed in reader] == [2, 2]
    assert reader.labels is not None
    assert reader.labels.tolist() == [[0, 1], [2, 3]]
    assert "the last 1 of 5 rows" in reader.notes[0]
    np.testing.assert_array_equal(next(iter(reader.part(1, 2)))["x"], list(reader)[1]["x"])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp"])
def test_a_truncated_or_false_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = painted(tmp_path, f"a.{suffix}", (64, 64))
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"not an image at all"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"a.{suffix}: not a readable image"):
            list(opened(tmp_path, NCHW))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted(tmp_path, "a.png", (20, 20))
    monkeypatch.setattr(images, "MAX_PIXELS", 399)
    with pytest.raises(DataError, match="20 x 20 pixels; more than 399 refused"):
        list(opened(tmp_path, NCHW))


def test_a_long_strip_is_not_blown_up_and_deep_pixels_are_not_clipped_silently(tmp_path: Path) -> None:
    Image.new("RGB", (1, 5000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="would be resized to 5000000x1000"):
        list(opened(tmp_path, NCHW, "resize=1000"))
    Image.new("I;16", (9, 9), 40_000).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        list(opened(tmp_path, NCHW))


def test_pillow_missing_says_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UnavailableError) as error:
        opened(tmp_path, NCHW)
    assert error.value.hint == 'pip install "onnxcomp[images]"'


@pytest.mark.parametrize(
    ("model", "query", "error", "message"),
    [
        (NCHW, "crop=9", UsageError, "height 9, and input 'x' takes 8"),
        (NCHW, "color=gray", UsageError, "doesn't give the 3 channels"),
        (NCHW, "mean=1,2", UsageError, "mean= has 2 numbers for 3 channels"),
        (NCHW, "n=0", UsageError, "n=0"),
        (NCHW, "labels=names", UsageError, r"Did you mean name\?"),
        (NCHW, "input=y", UsageError, "input=y"),
        (takes(x=("uint8", (1, 3, 8, 8))), "mean=1", UsageError, "make floats"),
        (takes(x=("float32", (1, 8))), "", DataError, "takes no images"),
        (takes(x=("float32", (1, 3, 8, 8)), m=("int64", (1,))), "", DataError, "also takes m"),
    ],
)
def test_options_that_do_not_fit_the_model_are_met_before_an_image_is_read(
    tmp_path: Path, model: Signature, query: str, error: type[Exception], message: str
) -> None:
    painted(tmp_path, "a.png")
    with pytest.raises(error, match=message):
        opened(tmp_path, model, query)


def test_a_resize_smaller_than_the_crop_names_the_image(tmp_path: Path) -> None:
    painted(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a.png: resized to 4x4, smaller than the crop 8x8"):
        list(opened(tmp_path, NCHW, "resize=4"))


def test_a_file_is_no_folder_of_images_and_an_empty_folder_has_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in it"):
        opened(tmp_path, NCHW)
    with pytest.raises(DataError, match="not a folder"):
        opened(painted(tmp_path, "a.png"), NCHW)
