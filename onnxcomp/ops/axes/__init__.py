"""How axes of inputs and outputs relate, operator by operator. One small rule for each family; see `relations`."""

from onnxcomp.ops.axes import (
    attention,
    elementwise,
    linear,
    movement,
    norms,
    quantization,
    recurrent,
    reductions,
)

__all__ = ["attention", "elementwise", "linear", "movement", "norms", "quantization", "recurrent", "reductions"]
