"""A share of a few samples moves in large steps: said where the drop that is allowed is smaller than one."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp.driver.options import Options
from onnxcomp.driver.workbench import prepare
from onnxcomp.evaluate.gates import Gates

MODEL = "g (float[N,4] x, float[4,3] w) => (float[N,3] s) { s = MatMul(x, w) }"


@pytest.mark.parametrize(
    ("samples", "metric", "gates", "told"),
    [
        (60, None, Gates(), "60 labelled samples: one of them is 0.0167 of top1, more than the drop of 0.01 "),
        (100, None, Gates(), None),
        (100, None, Gates(max_drop=0.005), "100 labelled samples: one of them is 0.0100 of top1"),
        (60, None, Gates(max_drop=0.0), None),
        (60, "py", Gates(), None),
    ],
)
def test_too_few_labels_for_the_drop_that_is_allowed_are_a_warning(tmp_path, samples, metric, gates, told):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, samples)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(samples, 4)).astype(np.float32), y=labels)
    (tmp_path / "m.py").write_text("def score(outputs, labels):\n    return 1.0\n")
    chosen = None if metric is None else f"py:{tmp_path / 'm.py'}:score"
    bench = prepare(graph(MODEL), Options(eval=str(tmp_path / "d.npz"), metric=chosen), gates)
    found = [n.sentence for n in bench.notes if "labelled samples" in n.sentence]
    assert [s.startswith(told) for s in found] == [True] if told else found == []
