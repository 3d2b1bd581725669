"""The only door through which a model comes in.

It makes the path absolute first: onnx-ir skips every check of external data for a bare file name.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir

from onnxcomp.errors import ModelError, UsageError
from onnxcomp.model import convert, graph_file, inference, payload
from onnxcomp.model.containment import DataFolder, check_range
from onnxcomp.model.findings import Finding, FindingCode
from onnxcomp.model.preflight import Facts, LoadLimits, preflight
from onnxcomp.model.weights import content_sha256, tensors_of, with_tensors, write_tensor
from onnxcomp.report.text import printable

__all__ = ["DEFAULT_LIMITS", "Finding", "FindingCode", "LoadLimits", "LoadedModel", "ModelSource", "load"]

DEFAULT_LIMITS = LoadLimits()
ModelSource: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model

_IN_MEMORY = "<memory>"
_SMALL = 1024


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed the door.

    Args:
        model: Weights in data files stay memory-mapped; those of a model given as protobuf are shared with it.
        path: Absolute; None when it came from memory.
        sha256: Over the graph file, then each data file in order of location. Of what came as an object: over its
            serialized form. Empty where the file is larger than was to be read for it.
        bytes: Of the graph and its data files.
        name: File name only, or "<memory>": what reports may show.
        findings: What was noticed.
        unknown_domains: Domains of custom operators.
    """

    model: ir.Model
    path: Path | None
    sha256: str
    bytes: int
    name: str
    findings: tuple[Finding, ...] = field(default=())
    unknown_domains: tuple[str, ...] = field(default=())


def load(
    source: ModelSource,
    *,
    limits: LoadLimits = DEFAULT_LIMITS,
    ort_version: str | None = None,
    digest_limit: int | None = None,
) -> LoadedModel:
    """Reads a model and refuses one that can't be worked on.

    Args:
        source: A path; the bytes of a file; a protobuf; or an onnx-ir model, which is taken as it is (not copied, not
            changed).
        limits: Sizes beyond which a model is refused.
        ort_version: Of the ONNX Runtime that it must load in; None: opset and IR version are not compared.
        digest_limit: Bytes, with data files, of the largest model that is read through for its `sha256`; None: all are.

    Raises:
        ModelError: Not found, not a model, hostile, damaged or too large; says which tensor, node or file.
        UsageError: `source` is something else.
    """
    inference.start()  # beside the reading: shapes are inferred next
    match source:
        case ir.Model():
            return _from_ir(source, limits, ort_version)
        case onnx.ModelProto():
            return _from_memory(source, convert.to_bytes(source), limits, ort_version)
        case bytes():
            return _from_memory(graph_file.parse(source, _IN_MEMORY), source, limits, ort_version)
        case str() | os.PathLike():
            return _from_file(Path(os.path.abspath(os.fspath(source))), limits, ort_version, digest_limit)
    raise UsageError(
        f"a model can't be read from a {type(source).__name__}",
        hint="Give a path, bytes, an onnx.ModelProto or an onnx_ir.Model.",
    )


def _from_file(path: Path, limits: LoadLimits, ort_version: str | None, digest_limit: int | None) -> LoadedModel:
    content = graph_file.read(path, limits.graph_bytes)
    proto = graph_file.parse(content, path.name)
    facts = preflight(proto, limits=limits, ort_version=ort_version)
    folder = DataFolder(path.parent)
    try:
        _bind(facts, folder, limits)
    except ModelError as error:
        if not path.is_symlink():
            raise
        target = printable(os.path.realpath(path), 200)
        raise ModelError(
            error.message,
            hint=f"{error.hint} The graph is a symbolic link: if its data is beside the target, give {target}.",
        ) from error
    files = folder.files()
    model = convert.to_ir(proto, sort=facts.unsorted)
    for tensor in tensors_of(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = folder.root
    size = len(content) + sum(file.size for file in files)
    read = digest_limit is None or size <= digest_limit
    sha256 = content_sha256(content, (file.path for file in files)) if read else ""
    return LoadedModel(model, path, sha256, size, path.name, facts.findings, facts.unknown_domains)


def _from_memory(proto: onnx.ModelProto, content: bytes, limits: LoadLimits, ort_version: str | None) -> LoadedModel:
    facts = preflight(proto, limits=limits, ort_version=ort_version)
    for _, where in facts.external:
        raise ModelError(
            f"{where} keeps its data in another file, and a model in memory has no folder to look in",
            hint="Give the path of the graph file; or load the data first: onnx.load_external_data_for_model.",
        )
    model = convert.to_ir(proto, sort=facts.unsorted)
    sha256 = content_sha256(content, ())
    return LoadedModel(model, None, sha256, len(content), _IN_MEMORY, facts.findings, facts.unknown_domains)


def _from_ir(model: ir.Model, limits: LoadLimits, ort_version: str | None) -> LoadedModel:
    """Checks a model whose creator chose its paths: bounds are checked, containment is not."""
    weights = 0

    def by_content(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """A reference in place of a large tensor: the graph is then small, and its hash covers the weights."""
        nonlocal weights
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(tensor)
        elif tensor.dtype == ir.DataType.STRING or tensor.nbytes < _SMALL:
            return tensor
        weights += tensor.nbytes
        digest, shape = _tensor_sha256(tensor), ir.Shape(tensor.shape.numpy())
        return ir.ExternalTensor(digest, 0, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or "")

    proto = convert.to_proto(with_tensors(model, by_content, by_content))
    facts = preflight(proto, limits=limits, ort_version=ort_version)
    graph = convert.to_bytes(proto)
    size = len(graph) + weights
    return LoadedModel(model, None, content_sha256(graph, ()), size, _IN_MEMORY, facts.findings, facts.unknown_domains)


def _bind(facts: Facts, folder: DataFolder, limits: LoadLimits) -> None:
    """Checks where every external tensor lies, and rewrites the reference to what was checked.

    Nothing else that the file says about it survives: other keys than these three have been a way to set attributes
    of onnx's own objects (CVE-2026-34445).
    """
    total = 0
    for tensor, where in facts.external:
        extent = folder.extent(tensor, payload.byte_count(tensor, where), where)
        total += extent.length
        del tensor.external_data[:]
        for key, value in (("location", extent.file.location), ("offset", extent.offset), ("length", extent.length)):
            tensor.external_data.add(key=key, value=str(value))
    if max(total, sum(file.size for file in folder.files())) > limits.data_bytes:
        raise ModelError(
            f"the weights of the model take more than {limits.data_bytes:,} bytes",
            hint="Raise LoadLimits.data_bytes if you trust it.",
        )


def _check_external(tensor: ir.ExternalTensor) -> None:
    where = f"tensor '{printable(tensor.name)}'"
    path = Path(tensor.path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(
            f"the data file '{printable(path)}' of {where} can't be read: {error.strerror}",
            hint="Load the model from its path, or set the base_dir of its tensors.",
        ) from error
    declared = tensor.nbytes if tensor.length is None else tensor.length
    check_range(path, size, tensor.offset or 0, declared, tensor.nbytes, where)


def _tensor_sha256(tensor: ir.TensorProtocol) -> str:
    digest = hashlib.sha256()

    class Sink:
        def write(self, data: bytes) -> int:
            digest.update(data)
            return len(data)

    write_tensor(tensor, Sink())
    return digest.hexdigest()
