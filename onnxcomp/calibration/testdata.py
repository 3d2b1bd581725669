"""A reader of ONNX test data: folders `test_data_set_*` with the inputs as `input_N.pb`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from onnxcomp.calibration.readers import Feed, Reader, indexed
from onnxcomp.calibration.rows import natural
from onnxcomp.errors import DataError
from onnxcomp.model.signature import Signature

PATTERN = "test_data_set_*"


def onnx_test_data(path: Path, signature: Signature) -> Reader:
    """One feed for each set, in counting order; the outputs beside the inputs are not read.

    Raises:
        DataError: No sets, a set without inputs, or (while iterating) a file that is no tensor.
    """
    sets = sorted((folder for folder in path.glob(PATTERN) if folder.is_dir()), key=natural)
    if not sets:
        raise DataError(f"{path.name}: no folders {PATTERN} in it")
    names = [port.name for port in signature.inputs]

    def feed(i: int) -> Feed:
        files = sorted(sets[i].glob("input_*.pb"), key=natural)
        if len(files) != len(names):
            raise DataError(f"{sets[i].name}: {len(files)} files input_N.pb for the {len(names)} inputs of the model")
        tensors = [_tensor(file) for file in files]
        # By name where the tensors bear the inputs' names, as ORT's own runner does it; else by number.
        named = {name for name, _ in tensors} == set(names)
        return {name if named else names[k]: array for k, (name, array) in enumerate(tensors)}

    return indexed(lambda: feed, len(sets), name=path.name)


def _tensor(file: Path) -> tuple[str, np.ndarray]:
    where = f"{file.parent.name}/{file.name}"
    try:
        proto = onnx.TensorProto.FromString(file.read_bytes())
        if proto.data_location == onnx.TensorProto.EXTERNAL:  # would make us read any file that it names
            raise DataError(f"{where}: a tensor with external data; refused", hint="Save it with its data inside.")
        return proto.name, np.asarray(onnx.numpy_helper.to_array(proto))
    except (DataError, MemoryError):
        raise
    except OSError as error:
        raise DataError(f"{where}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf and numpy say what is wrong with damaged bytes in many ways
        raise DataError(f"{where}: not a readable tensor: {error}", hint="Sequences and optionals: use py:.") from error
