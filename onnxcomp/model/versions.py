"""Is a model too old or too new: for the installed ONNX, and for the ONNX Runtime that it must load in?"""

from __future__ import annotations

from collections import Counter

import onnx

from onnxcomp.errors import ModelError
from onnxcomp.ops.limits import limits_of, minimum_ir_version
from onnxcomp.report.text import printable

STANDARD_DOMAINS = ("", "ai.onnx")
"""Two names of ONNX's own operator set."""

# IR 3 is the first with operator sets (ONNX 1.0).
_OLDEST_IR = 3
_COMMON_IR = 8


def check_versions(proto: onnx.ModelProto, ort_version: str | None) -> None:
    """Compares the IR version and the standard opset with what can be read.

    Args:
        proto: The model.
        ort_version: Of the ONNX Runtime that it must load in; None: not compared.

    Raises:
        ModelError: Names both numbers, and what to do.
    """
    _check_ir_version(proto.ir_version)
    # skl2onnx repeats an import; only two versions of one operator set contradict each other.
    imports = {
        ("" if entry.domain in STANDARD_DOMAINS else entry.domain, entry.version) for entry in proto.opset_import
    }
    for domain, count in Counter(domain for domain, _ in imports).items():
        if count > 1:
            raise ModelError(
                f"the model imports the operator set '{printable(domain) or 'ai.onnx'}' in {count} versions",
                hint="Keep one entry of model.opset_import for each domain.",
            )
    opset = dict(imports).get("")
    if opset is not None:
        _check_opset(opset)
    if ort_version is not None:
        _check_runtime(proto.ir_version, opset or 1, ort_version)


def _check_ir_version(version: int) -> None:
    if version > onnx.IR_VERSION:
        raise ModelError(
            f"the model has IR version {version}; ONNX {onnx.__version__} reads up to {onnx.IR_VERSION}",
            hint="Upgrade onnx: pip install -U onnx.",
        )
    if version < _OLDEST_IR:
        raise ModelError(
            f"the model has IR version {version}; the oldest that can be read is {_OLDEST_IR}",
            hint="Export the model again with a newer tool.",
        )


def _check_opset(opset: int) -> None:
    known = onnx.defs.onnx_opset_version()
    if not 1 <= opset <= known:
        raise ModelError(
            f"the model has opset {opset}; ONNX {onnx.__version__} knows 1 to {known}",
            hint="Upgrade onnx: pip install -U onnx." if opset > known else "Export the model again.",
        )


def _check_runtime(ir_version: int, opset: int, ort_version: str) -> None:
    told = limits_of(ort_version)
    upgrade = "or upgrade ONNX Runtime: pip install -U onnxruntime."
    if opset > told.opset:
        raise ModelError(
            f"the model has opset {opset}, but ONNX Runtime {ort_version} loads opsets up to {told.opset}",
            hint=f"Export the model with opset {told.opset} or lower, {upgrade}",
        )
    if ir_version > told.ir_version:
        enough = min(told.ir_version, max(minimum_ir_version(opset), _COMMON_IR))
        raise ModelError(
            f"the model has IR version {ir_version}, but ONNX Runtime {ort_version} loads up to {told.ir_version}",
            hint=f"Opset {opset} needs no more than IR version {enough}: set model.ir_version = {enough} with the onnx "
            f"package and save it again, {upgrade}",
        )
