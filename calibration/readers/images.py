"""A folder of images as feeds: each resized, cropped in the centre, scaled and turned to [1, 3, H, W] float32.

    CALIBRATION_DIR=photos onnxcomp optimize model.onnx --calibration py:calibration/readers/images.py:feeds

Copy this file and make `preprocess` the one that your application runs: the same resize filter, crop, mean and std.
Where each sub-folder is a class (photos/cat/1.jpg), `labels` holds its index in sorted order. Needs Pillow.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(os.environ.get("CALIBRATION_DIR", "images"))
INPUT = "input"  # the name of the model's input: `onnxcomp inspect model.onnx` shows it
RESIZE, CROP = 256, 224  # pixels: the shorter side after resizing, and the square that is cut from the centre
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, for values in [0, 1]
STD = np.array([0.229, 0.224, 0.225], np.float32)
LIMIT = 256  # images, spread evenly over the sorted folder so that no class is left out
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def preprocess(path: Path) -> np.ndarray:
    """Reads one image as float32 [1, 3, CROP, CROP]."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = RESIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
    pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[None]


class Images:
    """Opens an image only when its turn comes, so that memory holds one at a time."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise FileNotFoundError(f"no images under {folder}: set CALIBRATION_DIR or FOLDER")
        self.paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(LIMIT, len(paths))).astype(int)]
        classes = sorted({p.parent for p in paths})
        # With one folder for everything there are no classes, hence no labels to judge by.
        self.labels = np.array([classes.index(p.parent) for p in self.paths]) if len(classes) > 1 else None

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return ({INPUT: preprocess(path)} for path in self.paths)


def feeds() -> Images:
    return Images(FOLDER)
