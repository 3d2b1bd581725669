"""How many parameters go when half of the channels go: generated topologies and trained models; each proved equivalent.

    ONNXCOMP_ASSETS=... python benchmarks/pruning_coverage.py DIR    # DIR: of zoo_fetch.py (rapidocr, magika, silero)

50 % of the channels of every cell, by L1, not rounded, no refit.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from common import assets, write

import onnxcomp
from onnxcomp.errors import OnnxcompError
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import normalize

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

MODELS = {
    "PP-OCR cls": "*/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "PP-OCRv4 det": "*/ch_PP-OCRv4_det_infer.onnx",
    "PP-OCRv4 rec": "*/ch_PP-OCRv4_rec_infer.onnx",
    "magika": "magika/*.onnx",
    "silero-vad": "silero-vad/silero_vad_16k_op15.onnx",
    "minilm": "minilm.onnx",
    "vgg16": "vgg16_cifar10.onnx",
}


def halved(model: object) -> dict[str, object]:
    """One row; the original's parameters are those of the canonical form (Constant nodes lifted)."""
    start = time.monotonic()
    result = onnxcomp.prune(model, ratio=0.5, scope="uniform", round_to=1, refit="none", importance="l1", threads=1)  # type: ignore[arg-type]
    before, after = result.report.source, result.report.result
    step = result.report.steps[0]
    return {
        "removed": round(1 - after.parameters / max(1, before.parameters), 4),
        "verdict": str(result.report.verdict),
        "proof": next((s for s in step.summary if s.startswith("mask equivalence")), step.why),
        "seconds": round(time.monotonic() - start, 1),
    }


def topologies() -> dict[str, float]:
    """Share of the parameters removed; the engine alone, since timing 250 models would take an hour."""
    from graphs import context
    from prune_topologies import TOPOLOGIES, feed_of

    from onnxcomp.passes.prune.config import PruneConfig
    from onnxcomp.passes.prune.prune import Prune
    from onnxcomp.passes.simplify.simplify import Simplify, SimplifyConfig

    rows: dict[str, float] = {}
    for name, topology in TOPOLOGIES.items():
        model = normalize(topology.build()).model
        ctx = context([feed_of(model, 2)])
        fold = Simplify(SimplifyConfig(rules=("fold-constants", "remove-idle")))
        model = fold.apply(model, fold.plan(model, ctx), ctx)
        step = Prune(PruneConfig(ratio=0.5, scope="uniform", round_to=1, importance="l1", refit="none"))
        plan = step.plan(model, ctx)
        after = step.apply(model, plan, ctx)
        assert step.prove(model, after, plan, ctx).passed, name
        rows[name] = round(1 - cost(after).parameters / cost(model).parameters, 4)
    return rows


def main() -> None:
    rows: dict[str, object] = {}
    for path in sorted((assets() / "models").glob("*.onnx")):
        rows[path.stem] = halved(path)
        print(path.stem, rows[path.stem], flush=True)
    for folder in map(Path, sys.argv[1:]):
        for name, pattern in MODELS.items():
            for path in sorted(folder.glob(pattern))[:1]:
                try:
                    rows[name] = halved(path)
                except OnnxcompError as error:
                    rows[name] = {"error": error.message}
                print(name, rows[name], flush=True)
    generated = topologies()
    mean = float(np.mean(list(generated.values())))
    print(f"{len(generated)} topologies: {mean:.1%} of the parameters removed on average")
    write("pruning_coverage", {"models": rows, "topologies": generated, "mean": round(mean, 4)})


if __name__ == "__main__":
    main()
