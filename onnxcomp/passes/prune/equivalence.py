"""The proof: the pruned model, before any refit, computes what the original does with the removed channels masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed
from onnxcomp.errors import LimitError, OnnxcompError
from onnxcomp.evaluate.equivalence import Equivalence, compare, watched
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.reference import masked
from onnxcomp.passes.prune.rewrite import rewrite
from onnxcomp.runtime.session import SessionConfig

Keep = Mapping[str, np.ndarray]


def check(model: ir.Model, analysis: Analysis, keep: Keep, feeds: Sequence[Feed], config: SessionConfig) -> Equivalence:
    """Compares the pruned with the masked model on each feed, cells that are only approximate left whole.

    Args:
        model: The original, canonical.
        keep: Cell → classes that stay.
        feeds: Of different batch sizes, best.
    """
    exact = {
        name: classes
        for name, classes in keep.items()
        if analysis.structure.cells[analysis.structure.index[name]].exact
    }
    try:
        pruned, kept = rewrite(model, analysis, exact)
        reference = masked(model, analysis, kept)
        return compare(model, pruned, reference, watched(model, kept), feeds, config, called="the masked original")
    except LimitError:
        raise
    except OnnxcompError as error:
        return Equivalence(f"the pruned model does not run: {error.message}")
