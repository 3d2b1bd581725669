"""A reader of a folder of images: resized by the short side, cropped in the centre, normalised, one feed at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.calibration.options import Options, nearest
from onnxcomp.calibration.readers import Feed, Reader, indexed
from onnxcomp.calibration.rows import Affine, channel_axis, grouped, is_float, rows_per_feed, said, whole_feeds
from onnxcomp.errors import DataError, UnavailableError, UsageError
from onnxcomp.model.signature import Port, Signature

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take the bytes for, whatever the suffix says: an EPS would be given to Ghostscript."""
MAX_PIXELS = 89_478_485
"""More in one image is refused: Pillow's own threshold for a decompression bomb, at which it only warns."""
DEFAULT_CROP = 224
_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}


def image_folder(path: Path, options: Options, signature: Signature) -> Reader:
    """Images in sorted order; `n=` takes so many, evenly spaced, as sorted files often are sorted classes.

    What the options leave open comes from the model's input: size, layout, colours.

    Raises:
        UnavailableError: Pillow is not installed.
        DataError: No images, one that can't be read, or that has no label in its name.
        UsageError: An option that doesn't fit the model.
    """
    _pillow()
    port = _port(options, signature)
    labelled = options.choice("labels", ("name", "folder"))
    files = image_files(path, recursive=labelled == "folder")
    if not files:
        inside = image_files(path, recursive=True)
        hint = "They are in sub-folders: labels=folder reads those." if inside else None
        raise DataError(f"{path.name}: no images in it", hint=hint)
    notes: list[str] = []
    wanted = options.count("n") or len(files)
    if wanted > len(files):
        notes.append(said(f"{path.name}: n={wanted} is more than its {len(files)} images; all are used"))
    classes = {folder: i for i, folder in enumerate(sorted({file.parent for file in files}))}
    wanted = min(wanted, len(files))
    files = [files[i * len(files) // wanted] for i in range(wanted)]
    labels = [_number(file) if labelled == "name" else classes[file.parent] for file in files] if labelled else None

    pixels = _pixels(port, options, notes, path.name)
    per_feed = rows_per_feed([port])
    count, tail = whole_feeds(len(files), per_feed, path.name)

    def feed(i: int) -> Feed:
        return {port.name: np.stack([pixels.read(file) for file in files[i * per_feed : (i + 1) * per_feed]])}

    return indexed(
        lambda: feed,
        count,
        name=f"images:{path.name}",
        labels=None if labels is None else grouped(np.asarray(labels, np.int64), count, per_feed),
        notes=(*notes, *tail),
    )


def image_files(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The images in a folder, told by their suffixes, sorted."""
    found = folder.glob("**/*" if recursive else "*")
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES and file.is_file())


@dataclass(frozen=True)
class _Pixels:
    """From a file to the array of one image.

    Args:
        resize: Length of the short side, None for what just covers the crop.
        crop: Height and width.
        channels: 3 for rgb and bgr, 1 for gray.
    """

    resize: int | None
    crop: tuple[int, int]
    color: str
    channels_last: bool
    bicubic: bool
    affine: Affine
    dtype: np.dtype

    def read(self, file: Path) -> np.ndarray:
        from PIL import Image

        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{file.name}: {image.width} x {image.height} pixels; more than {MAX_PIXELS} refused"
                    )
                if image.mode.startswith(("I", "F")):
                    raise DataError(f"{file.name}: pixels of more than 8 bits", hint="Save it with 8, or use npz:.")
                x = np.asarray(self._fit(image.convert(_MODES[self.color]), file))
        except (DataError, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever they like at damaged bytes
            raise DataError(f"{file.name}: not a readable image: {error}", hint="Mend it or take it out.") from error
        x = x.reshape(*self.crop, -1)
        if self.color == "bgr":
            x = x[..., ::-1]
        y = self.affine(x, 2) if self.affine else x
        return np.ascontiguousarray(y if self.channels_last else y.transpose(2, 0, 1)).astype(self.dtype, copy=False)

    def _fit(self, image: Image, file: Path) -> Image:
        """Resizes and crops as torchvision does, rounding included."""
        from PIL.Image import Resampling

        (height, width), short = self.crop, min(image.size)
        if self.resize is not None:
            size = tuple(self.resize * side // short for side in image.size)
        else:
            cover = max(width / image.width, height / image.height)
            size = (max(width, round(image.width * cover)), max(height, round(image.height * cover)))
        if size[0] * size[1] > MAX_PIXELS:
            raise DataError(f"{file.name}: would be resized to {size[1]}x{size[0]}", hint="Give a smaller resize=.")
        if size[0] < width or size[1] < height:
            raise DataError(
                f"{file.name}: resized to {size[1]}x{size[0]}, smaller than the crop {height}x{width}",
                hint="Give a larger resize=, or leave it out.",
            )
        image = image.resize((size[0], size[1]), Resampling.BICUBIC if self.bicubic else Resampling.BILINEAR)
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        return image.crop((left, top, left + width, top + height))


def _pixels(port: Port, options: Options, notes: list[str], where: str) -> _Pixels:
    if port.dtype is None or (port.shape is not None and len(port.shape) != 4):
        raise DataError(f"input {port.name!r} takes no images: {port.dtype} {port.shape}", hint="Use npz: or py:.")
    shape = port.shape or (None,) * 4
    axis = channel_axis(shape)
    layout = options.choice("layout", ("nchw", "nhwc")) or ("nhwc" if axis == 3 else "nchw")
    if axis is None and options.text("layout") is None:
        notes.append(said(f"{where}: the model doesn't tell its layout; {layout} was taken (layout= sets it)"))
    *_, height, width = shape if layout == "nchw" else shape[:3]
    channels = shape[1 if layout == "nchw" else 3]
    color = options.choice("color", tuple(_MODES)) or ("gray" if channels == 1 else "rgb")
    resize, crop = options.count("resize"), options.size("crop")
    if crop is None and isinstance(height, int) and isinstance(width, int):
        crop = height, width
    if crop is None:
        crop = DEFAULT_CROP, DEFAULT_CROP
        notes.append(said(f"{where}: the model takes any image size; {DEFAULT_CROP} was taken (crop= sets it)"))
    for wanted, given, what in ((height, crop[0], "height"), (width, crop[1], "width")):
        if isinstance(wanted, int) and wanted != given:
            raise UsageError(f"crop= gives {what} {given}, and input {port.name!r} takes {wanted}")
    if isinstance(channels, int) and channels != (1 if color == "gray" else 3):
        raise UsageError(f"color={color} doesn't give the {channels} channels of input {port.name!r} ({layout})")
    affine = Affine.of(options, scale=255.0 if is_float(port) else None)
    if affine and not is_float(port):
        raise UsageError(f"scale=, mean= and std= make floats, and input {port.name!r} takes {port.dtype}")
    affine(
        np.zeros((1, 1, 1 if color == "gray" else 3)), 2
    )  # a wrong number of means is met here, not at the first image
    bicubic = options.choice("interpolation", ("bilinear", "bicubic")) == "bicubic"
    return _Pixels(resize, crop, color, layout == "nhwc", bicubic, affine, port.dtype)


def _port(options: Options, signature: Signature) -> Port:
    ports = {port.name: port for port in signature.inputs}
    name = options.text("input", signature.inputs[0].name if signature.inputs else "")
    if name is None or name not in ports:
        raise UsageError(f"input={name}: the model has no such input", hint=nearest(name or "", ports))
    if others := sorted(ports.keys() - {name}):
        raise DataError(f"images fill one input, and the model also takes {', '.join(others)}", hint="Use npz: or py:.")
    return ports[name]


def _number(file: Path) -> int:
    match = re.match("[0-9]+", file.name)
    if match is None:
        raise DataError(f"{file.name}: labels=name wants the class index in front, as in 0012_name.jpg")
    return int(match.group())


def _pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            "images are read by Pillow, which is not here", hint='pip install "onnxcomp[images]"'
        ) from error
