"""Does a tensor hold what its dims and its type promise?

Checked on the protobuf, before anything allocates memory by those promises.
"""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from onnxcomp.errors import DAMAGED, ModelError
from onnxcomp.report.text import printable

_MAX_BYTES = 2**63 - 1

# The field of TensorProto that carries each type when raw_data does not (onnx.proto, TensorProto); others: int32_data.
_FIELD: dict[ir.DataType, str] = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
    ir.DataType.STRING: "string_data",
}

# Elements in one entry of that field, where it is not 1. Types under a byte are packed; 6-bit floats are not.
_ELEMENTS_PER_ENTRY: dict[ir.DataType, float] = {
    ir.DataType.COMPLEX64: 0.5,
    ir.DataType.COMPLEX128: 0.5,
    ir.DataType.INT4: 2,
    ir.DataType.UINT4: 2,
    ir.DataType.FLOAT4E2M1: 2,
    ir.DataType.INT2: 4,
    ir.DataType.UINT2: 4,
}


def data_type(tensor: onnx.TensorProto, where: str) -> ir.DataType:
    """The element type of a tensor that holds values.

    Raises:
        ModelError: Undefined, or not one that ONNX knows.
    """
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(
            f"{where} has the element type {tensor.data_type}, which ONNX {onnx.__version__} does not know",
            hint=DAMAGED,
        )
    return dtype


def element_count(tensor: onnx.TensorProto, where: str) -> int:
    """The product of the dims.

    Raises:
        ModelError: A negative dim, or a product that no memory can hold.
    """
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{where} has a negative dimension: {printable(list(tensor.dims))}", hint=DAMAGED)
    # A zero beside huge dims makes an empty tensor that numpy still can't shape, so zeros don't excuse the others.
    if math.prod(d or 1 for d in tensor.dims) > _MAX_BYTES // 16:
        raise ModelError(f"{where} has impossible dimensions: {printable(list(tensor.dims))}", hint=DAMAGED)
    return math.prod(tensor.dims)


def byte_count(tensor: onnx.TensorProto, where: str) -> int:
    """The bytes that the dims and the type of a tensor ask for, as raw data: types under a byte are packed.

    Raises:
        ModelError: As `data_type` and `element_count`; or a tensor of strings, which has no such number.
    """
    dtype = data_type(tensor, where)
    if dtype == ir.DataType.STRING:
        raise ModelError(f"{where} is a tensor of strings stored as raw bytes, which ONNX does not allow", hint=DAMAGED)
    return (element_count(tensor, where) * dtype.bitwidth + 7) // 8


def check_inline(tensor: onnx.TensorProto, where: str) -> None:
    """Compares the values that lie inside the graph file with dims and type.

    Args:
        tensor: Not external.
        where: Names it in errors: "initializer 'w'".

    Raises:
        ModelError: More or fewer values than promised. None at all is refused too: readers would allocate zeros.
    """
    if tensor.HasField("raw_data"):
        found, wanted, unit = len(tensor.raw_data), byte_count(tensor, where), "bytes of raw data"
    else:
        dtype = data_type(tensor, where)
        field = _FIELD.get(dtype, "int32_data")
        wanted = math.ceil(element_count(tensor, where) / _ELEMENTS_PER_ENTRY.get(dtype, 1))
        found, unit = len(getattr(tensor, field)), f"entries of {field}"
    if found != wanted:
        dims, name = printable(list(tensor.dims)), data_type(tensor, where).name
        raise ModelError(f"{where} holds {found:,} {unit}, but dims {dims} of {name} need {wanted:,}", hint=DAMAGED)
