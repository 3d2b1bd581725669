"""A folder of 16-bit PCM .wav files as feeds: windows of mono float32 samples in [-1, 1), [1, WINDOW].

    CALIBRATION_DIR=recordings onnxcomp optimize model.onnx --calibration py:calibration/readers/audio.py:feeds

Needs only the standard library. For a model that takes spectra, compute them in `preprocess` as your application does.
"""

import os
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOLDER = Path(os.environ.get("CALIBRATION_DIR", "audio"))
INPUT = "input"  # the name of the model's input: `onnxcomp inspect model.onnx` shows it
RATE = 16_000  # Hz; a file at another rate is refused, since resampling must be the one of your application
WINDOW, HOP = 16_000, 16_000  # samples: the length of a window, and the step from one to the next
PER_FILE = 8  # windows of one file at most, spread evenly, so that a long recording doesn't drown the others


def read(path: Path) -> np.ndarray:
    """Reads a file as float32 [samples]; several channels are averaged."""
    with wave.open(str(path), "rb") as file:
        width, rate = 8 * file.getsampwidth(), file.getframerate()
        if (width, rate) != (16, RATE):
            raise ValueError(f"{path}: {width} bits at {rate} Hz; wanted 16 bits at {RATE} Hz")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
    mono: np.ndarray = samples.mean(1, dtype=np.float32) / np.float32(32768)
    return mono


def preprocess(window: np.ndarray) -> np.ndarray:
    """Turns float32 [WINDOW] into what the model takes."""
    return window[None]


class Windows:
    """Reads a file only when its turn comes. The number of windows is not known before, so there is no `__len__`."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.wav"))
        if not self.paths:
            raise FileNotFoundError(f"no .wav files under {folder}: set CALIBRATION_DIR or FOLDER")

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for path in self.paths:
            samples = read(path)
            samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))  # a short file gives one window, zeros behind
            starts = np.arange(0, len(samples) - WINDOW + 1, HOP)
            for i in np.linspace(0, len(starts) - 1, min(PER_FILE, len(starts))).astype(int):
                yield {INPUT: preprocess(samples[starts[i] : starts[i] + WINDOW])}


def feeds() -> Windows:
    return Windows(FOLDER)
