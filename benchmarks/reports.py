"""`onnxcomp optimize` on the embedded default, on MobileNetV2 and on the three PP-OCR models, each with its report.

    ONNXCOMP_ASSETS=... python benchmarks/reports.py ZOO [NAME ...]

ZOO is the folder that `zoo_fetch.py` and `zoo_data.py` filled. Models that are not there are skipped, and said.
Reports go to `results/reports/` as Markdown (to read) and JSON (every node, every reason).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import RESULTS

ROOT = Path(__file__).absolute().parent.parent
EMBEDDED = ROOT / "calibration" / "fashion_mnist"
PIXELS = "map=x:image&layout=nhwc&scale=255"


def jobs(zoo: Path) -> dict[str, tuple[Path, list[str]]]:
    """Name → model and the options that give it data."""
    assets = Path(os.environ.get("ONNXCOMP_ASSETS", "missing")).absolute()
    ocr, data = zoo / "rapidocr-onnxruntime", zoo / "data"
    images = f"images:{assets / 'imagenet224'}?mean=imagenet&std=imagenet&labels=name&n=500"
    embedded = [f"npz:{EMBEDDED / name}.npz?{PIXELS}" for name in ("calibration", "test")]
    return {
        "embedded": (EMBEDDED / "fashion_cnn.onnx", ["--calibration", embedded[0], "--eval", embedded[1]]),
        "mobilenet_v2": (assets / "models" / "mobilenet_v2.onnx", ["--calibration", images]),
        "ppocr_det": (ocr / "ch_PP-OCRv4_det_infer.onnx", ["--calibration", str(data / "ppocr_det")]),
        "ppocr_rec": (ocr / "ch_PP-OCRv4_rec_infer.onnx", ["--calibration", str(data / "ppocr_rec")]),
        "ppocr_cls": (
            ocr / "ch_ppocr_mobile_v2.0_cls_infer.onnx",
            ["--calibration", str(data / "ppocr_cls" / "data.npz")],
        ),
    }


def main() -> None:
    folder = RESULTS.absolute() / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (model, data) in jobs(Path(sys.argv[1]).absolute()).items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        if not model.exists():
            print(f"{name}: skipped, {model} is not there")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "onnxcomp.cli.main", "optimize", str(model), *data, "--threads", "1", "-q"]
            command += ["-o", f"{name}.opt.onnx"]
            command += ["--report", str(folder / f"{name}.md"), "--report", str(folder / f"{name}.json")]
            code = subprocess.run(command, cwd=scratch).returncode
        report = folder / f"{name}.md"
        print(f"{name}: exit {code}; " + (report.read_text().splitlines()[2] if report.exists() else ""), flush=True)


if __name__ == "__main__":
    main()
