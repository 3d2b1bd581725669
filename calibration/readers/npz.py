"""An .npz with raw arrays as feeds: sample i of array `x` becomes the input as float32 [1, channels, height, width].

    CALIBRATION_NPZ=train.npz onnxcomp optimize model.onnx --calibration py:calibration/readers/npz.py:feeds

What the built-in kind can say (npz:train.npz?map=x:image&layout=nhwc&scale=255) needs no script; copy this one when the
preprocessing is more than that. Its constants suit calibration/fashion_mnist, labels in `y` included.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FILE = Path(os.environ.get("CALIBRATION_NPZ", Path(__file__).parent.parent / "fashion_mnist" / "calibration.npz"))
ARRAYS = {"x": "image"}  # array in the file → input of the model
LABELS = "y"  # array with one label for each sample, where the file has one


def preprocess(sample: np.ndarray) -> np.ndarray:
    """Turns one sample, uint8 [1, height, width, channels], into what the model takes."""
    return np.moveaxis(sample, 3, 1).astype(np.float32) / 255


class Arrays:
    """Keeps the raw bytes and converts a sample only when its turn comes: float32 would take four times the memory."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[array] for array, name in ARRAYS.items()}
            self.labels = file.get(LABELS)
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"{path}: the arrays have different numbers of samples: {sizes}")
        self.size = next(iter(sizes.values()))

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for i in range(self.size):
            yield {name: preprocess(array[i : i + 1]) for name, array in self.arrays.items()}


def feeds() -> Arrays:
    return Arrays(FILE)
