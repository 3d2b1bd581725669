"""What each ONNX Runtime release loads: the highest ai.onnx opset and IR version. Facts as data.

Measured on the released CPU wheels, newest patch of each minor release (1.17.3 to 1.31.1): a one-node model is stamped
with rising numbers until `InferenceSession` refuses it. It refuses opsets above the last one that ONNX had released
when it was built (`ValidateOpsetForDomain` in onnxruntime/core/graph/model_load_utils.h; the environment variable
`ALLOW_RELEASED_ONNX_OPSET_ONLY=0` would turn that off), and IR versions that it does not know (core/graph/model.cc).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxcomp.errors import UnavailableError, UsageError


@dataclass(frozen=True)
class OrtLimits:
    """The newest model that an ONNX Runtime loads.

    Args:
        opset: Highest version of the standard operator set (ai.onnx).
        ir_version: Highest IR version (the version of the file format).
    """

    opset: int
    ir_version: int


# (major, minor) of the first release with these limits; a release in between has those of the row above it.
_FIRST_WITH: dict[tuple[int, int], OrtLimits] = {
    (1, 17): OrtLimits(opset=20, ir_version=9),
    (1, 18): OrtLimits(opset=21, ir_version=10),
    (1, 19): OrtLimits(opset=21, ir_version=10),
    (1, 20): OrtLimits(opset=21, ir_version=10),
    (1, 21): OrtLimits(opset=22, ir_version=10),
    (1, 22): OrtLimits(opset=22, ir_version=10),
    (1, 23): OrtLimits(opset=23, ir_version=11),
    (1, 24): OrtLimits(opset=25, ir_version=13),
    (1, 25): OrtLimits(opset=26, ir_version=13),
    (1, 26): OrtLimits(opset=26, ir_version=13),
    (1, 27): OrtLimits(opset=26, ir_version=13),
    (1, 28): OrtLimits(opset=26, ir_version=13),
    (1, 29): OrtLimits(opset=26, ir_version=13),
    (1, 30): OrtLimits(opset=26, ir_version=13),
    (1, 31): OrtLimits(opset=26, ir_version=13),
}

# IR version → the last ai.onnx opset that was released with it (onnx/docs/Versioning.md, "Released Versions").
_LAST_OPSET_OF_IR: dict[int, int] = {
    3: 8,
    4: 9,
    5: 10,
    6: 11,
    7: 14,
    8: 18,
    9: 20,
    10: 22,
    11: 23,
    12: 24,
    13: 27,
    14: 28,
}


def limits_of(ort_version: str) -> OrtLimits:
    """The limits of an ONNX Runtime; one that is newer than this table has at least the limits of its newest row.

    Args:
        ort_version: As in `onnxruntime.__version__`: "1.24.1", "1.31.0.dev20261001", "1.31.1+cu130".

    Raises:
        UsageError: Not a version.
        UnavailableError: Older than the table.

    >>> limits_of("1.23.2")
    OrtLimits(opset=23, ir_version=11)
    """
    match = re.match(r"(\d+)\.(\d+)(?!\d)", ort_version)
    if match is None:
        raise UsageError(f"{ort_version!r} is not a version of ONNX Runtime", hint="Write it as 1.24 or 1.24.1.")
    version = int(match[1]), int(match[2])
    known = [row for row in _FIRST_WITH if row <= version]
    if not known:
        oldest = "{}.{}".format(*min(_FIRST_WITH))
        raise UnavailableError(
            f"ONNX Runtime {ort_version} is older than {oldest}, the oldest release whose limits are known",
            hint='Install a newer one: pip install "onnxruntime>=1.24"',
        )
    return _FIRST_WITH[max(known)]


def minimum_ir_version(opset: int) -> int:
    """The IR version that ONNX released together with an ai.onnx opset; a file with that opset declares at least this.

    >>> minimum_ir_version(17)
    8
    """
    return next((ir for ir, last in _LAST_OPSET_OF_IR.items() if opset <= last), max(_LAST_OPSET_OF_IR))
