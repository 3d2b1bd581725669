"""How much of each topology the engine is able to remove: half of the channels of every cell."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from prune_topologies import TOPOLOGIES
from pruning import analysed

from onnxcomp.model.cost import cost
from onnxcomp.passes.prune.rewrite import rewrite

MEAN_FLOOR = 0.64

FLOORS = {
    "conv_relu_conv": 0.49,
    "resnet_with_batch_norm": 0.70,
    "mobilenet_v2": 0.60,
    "densenet": 0.65,
    "unet_deconv": 0.70,
    "shufflenet_v2": 0.50,
    "yolo_c2f": 0.60,
    "vision_transformer": 0.60,
    "bert": 0.60,
    "swin_window": 0.50,
    "bidirectional_gru": 0.55,
    "einsum_projections": 0.60,
    "squeeze_excite_gemm_reshape": 0.65,
    "pixel_shuffle_dcr": 0.65,
    "qdq_convs": 0.60,
    "every_other_channel": 0.49,
    "deformable_conv": 0.60,
    "mean_variance_norm": 0.49,
    "dynamically_quantized": 0.60,
    "siamese_cosine": 0.49,
}
"""Parameters that can be removed at least, for one topology of each family."""


@cache
def removed(name: str) -> float:
    """Share of the parameters that go when every cell loses half of its classes."""
    model, analysis = analysed(name)
    keep = {cell.name: np.arange(max(1, cell.size - cell.size // 2)) for cell in analysis.structure.cells}
    return 1 - cost(rewrite(model, analysis, keep)[0]).parameters / cost(model).parameters


def test_half_of_the_channels_is_nearly_two_thirds_of_the_parameters() -> None:
    """The mean over all topologies; `pytest -s` prints the table."""
    table = sorted((removed(name), name) for name in TOPOLOGIES)
    mean = float(np.mean([share for share, _ in table]))
    print("\n" + "\n".join(f"{share:6.1%}  {name}" for share, name in table) + f"\n{mean:6.1%}  mean of {len(table)}")
    assert mean >= MEAN_FLOOR
    assert sum(share == 0 for share, _ in table) <= 2


@pytest.mark.parametrize("name", FLOORS)
def test_families_stay_prunable(name: str) -> None:
    assert removed(name) >= FLOORS[name]
