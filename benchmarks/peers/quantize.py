"""One quantiser on one model, in an environment of its own: `python quantize.py TOOL MODEL CALIBRATION OUTPUT`.

CALIBRATION is a folder of `.npz` files, each one whole feed. Every tool as its documentation recommends for ONNX
Runtime's CPU provider: u8 activations, s8 weights per channel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

Feed = dict[str, np.ndarray]


class Reader(Protocol):
    """ONNX Runtime's reader protocol."""

    def get_next(self) -> Feed | None: ...


class Feeds:
    """Re-iterable feeds, and ONNX Runtime's reader protocol over them."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.npz"))
        self.rewind()

    def __iter__(self) -> Iterator[Feed]:
        for path in self.files:
            with np.load(path) as data:
                yield dict(data)

    def __len__(self) -> int:
        return len(self.files)

    def rewind(self) -> None:
        self._next = iter(self)

    def get_next(self) -> Feed | None:
        return next(self._next, None)


def _prepared(model: Path, output: Path) -> Path:
    """What ONNX Runtime's documentation tells to do first; the model as it is where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output.with_suffix(".prepared.onnx")
    try:
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    except Exception as error:
        print(f"quant_pre_process failed: {error}", file=sys.stderr)
        return model
    return prepared


def ort_static(method: str, model: Path, feeds: Reader, output: Path, *, reduce_range: bool = False) -> None:
    """QDQ, u8 activations, s8 weights per channel; `reduce_range` is recommended for CPUs without VNNI."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        str(_prepared(model, output)),
        str(output),
        feeds,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        calibrate_method=getattr(CalibrationMethod, method),
    )


def ort_minmax(model: Path, feeds: Feeds, output: Path) -> None:
    ort_static("MinMax", model, feeds, output)


def ort_percentile(model: Path, feeds: Feeds, output: Path) -> None:
    ort_static("Percentile", model, feeds, output)


def ort_dynamic(model: Path, feeds: Feeds, output: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(_prepared(model, output)), str(output), weight_type=QuantType.QInt8, per_channel=True)


def nncf(model: Path, feeds: Feeds, output: Path) -> None:
    import nncf
    import onnx

    kind = nncf.ModelType.TRANSFORMER if "input_ids" in next(iter(feeds)) else None
    data = nncf.Dataset(list(feeds))
    preset = nncf.QuantizationPreset.MIXED
    result = nncf.quantize(onnx.load(str(model)), data, preset=preset, model_type=kind, subset_size=len(feeds))
    onnx.save(result, str(output))


def quark(model: Path, feeds: Feeds, output: Path) -> None:
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config import Config, get_default_config

    config = Config(global_quant_config=get_default_config("U8S8_AAWS"))
    ModelQuantizer(config).quantize_model(str(model), str(output), feeds)


TOOLS = {f.__name__: f for f in (ort_minmax, ort_percentile, ort_dynamic, nncf, quark)}

if __name__ == "__main__":
    name, model, calibration, output = sys.argv[1:]
    TOOLS[name](Path(model), Feeds(Path(calibration)), Path(output))
