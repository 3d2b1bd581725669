"""What is worth knowing about a model before compressing it, found without running it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

import onnx_ir as ir

from onnxcomp.model.cost import constants, subgraph_share
from onnxcomp.model.findings import FindingCode
from onnxcomp.model.load import LoadedModel
from onnxcomp.model.signature import signature
from onnxcomp.model.weights import data_paths, write_tensor
from onnxcomp.ops.attributes import is_standard
from onnxcomp.ops.definitions import definition
from onnxcomp.ops.kernels import QUANTIZATION_OPERATORS
from onnxcomp.report.figures import listed, size
from onnxcomp.report.inspection import ModelFinding, Trait
from onnxcomp.report.text import plural, printable

SMALLEST_DUPLICATE = 1024
"""Bytes from which on a weight that is stored twice is worth telling."""

OF_LOADING = {
    FindingCode.CUSTOM_DOMAIN: (Trait.DOMAINS, "warning"),
    FindingCode.FUNCTIONS: (Trait.FUNCTIONS, "info"),
}
"""What the door found, as findings of an inspection; the rest is noted."""


def traits(loaded: LoadedModel, *, read_weights: bool) -> Iterator[ModelFinding]:
    """Facts of the file itself, not of its canonical form.

    Args:
        read_weights: Duplicates are looked for, which reads the weights that could be equal.
    """
    model = loaded.model
    for finding in loaded.findings:
        code, level = OF_LOADING.get(finding.code, (Trait.NOTED, "info"))
        yield ModelFinding.model_validate({"code": code, "level": level, "sentence": finding.sentence})
    yield from _domains(model)
    yield from _bodies(model)
    files = data_paths(model)
    if files:
        names = ", ".join(sorted(printable(path.name, 60) for path in files)[:3])
        yield _info(Trait.EXTERNAL_DATA, f"{plural(len(files), 'data file')} beside the graph: {names}")
    yield from _dynamic(model)
    yield from _weights(model)
    yield from _quantized(model)
    yield from _duplicates(model, read_weights)


def _info(code: Trait, sentence: str) -> ModelFinding:
    return ModelFinding(code=code, level="info", sentence=sentence)


def _domains(model: ir.Model) -> Iterator[ModelFinding]:
    functions = {(f.domain, f.name) for f in model.functions.values()}
    nodes = (n for n in model.graph.all_nodes() if not is_standard(n) and (n.domain, n.op_type) not in functions)
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for node in nodes:
        found[node.domain][node.op_type] += 1
    for domain in ("com.microsoft", "ai.onnx.ml"):
        if domain in found:
            sentence = f"operators of {domain}: {listed(dict(found[domain].most_common()))}"
            yield _info(Trait.DOMAINS, sentence)
    opset = model.opset_imports.get("", 0)
    standard = Counter(
        n.op_type for n in model.graph.all_nodes() if is_standard(n) and (n.domain, n.op_type) not in functions
    )
    undefined = {name: count for name, count in standard.most_common() if definition(name, opset) is None}
    if undefined:
        sentence = f"operators that onnx does not define at opset {opset}: {listed(undefined)}"
        sentence += "; ONNX Runtime may not load them"
        yield ModelFinding(code=Trait.DOMAINS, level="warning", sentence=sentence)


def _bodies(model: ir.Model) -> Iterator[ModelFinding]:
    holders = Counter(
        node.op_type
        for node in model.graph.all_nodes()
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    )
    if holders:
        share = subgraph_share(model)
        sentence = f"{listed(dict(holders))} with bodies that hold {share:.0%} of the parameters"
        told = f"{sentence}; passes leave bodies as they are" if share else sentence
        yield ModelFinding(code=Trait.BODIES, level="warning" if share > 0.5 else "info", sentence=told)


def _dynamic(model: ir.Model) -> Iterator[ModelFinding]:
    ports = signature(model).inputs
    loose = [p.name for p in ports if p.shape is None or any(not isinstance(d, int) for d in p.shape)]
    if loose:
        names = ", ".join(printable(name, 40) for name in loose[:4]) + ", …" * (len(loose) > 4)
        yield _info(Trait.DYNAMIC, f"inputs with dynamic dimensions: {names}")


def _weights(model: ir.Model) -> Iterator[ModelFinding]:
    """Bytes by type."""
    held: Counter[str] = Counter()
    for tensor in constants(model):
        held[tensor.dtype.name.lower()] += 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes
    total = held.total()
    if not total:
        return
    kinds = ", ".join(f"{name} {size(count)}" for name, count in held.most_common(5) if count)
    yield _info(Trait.WEIGHT_TYPES, f"weights and constants: {kinds}")
    share = held["float"] / total
    if share > 0.01:
        sentence = f"{share:.0%} of the bytes of weights are float32, which float16 halves and INT8 quarters"
        yield _info(Trait.FLOAT32, sentence)


def _quantized(model: ir.Model) -> Iterator[ModelFinding]:
    found = Counter(n.op_type for n in model.graph.all_nodes() if n.op_type in QUANTIZATION_OPERATORS)
    if found:
        sentence = f"it is quantised already, at least in part: {listed(dict(found.most_common()))}"
        yield ModelFinding(code=Trait.QUANTIZED, level="warning", sentence=sentence)


def _duplicates(model: ir.Model, read: bool) -> Iterator[ModelFinding]:
    """Equal weights under different names; only those of one type and size are compared, by a hash of their bytes."""
    alike: defaultdict[tuple[int, tuple[int, ...]], list[ir.TensorProtocol]] = defaultdict(list)
    for tensor in constants(model):
        if tensor.dtype != ir.DataType.STRING and tensor.nbytes >= SMALLEST_DUPLICATE:
            alike[int(tensor.dtype), tuple(tensor.shape.numpy())].append(tensor)
    rivals = [tensors for tensors in alike.values() if len(tensors) > 1]
    if not read:
        if rivals:
            count = sum(map(len, rivals))
            yield _info(Trait.DUPLICATES, f"{count} weights were not compared with each other: that reads all of them")
        return
    copies = wasted = 0
    for tensors in rivals:
        extra = len(tensors) - len({_sha256(tensor) for tensor in tensors})
        copies, wasted = copies + extra, wasted + extra * tensors[0].nbytes
    if copies:
        sentence = f"copies of other weights: {copies}, {size(wasted)}; simplify merges them"
        yield _info(Trait.DUPLICATES, sentence)


def _sha256(tensor: ir.TensorProtocol) -> bytes:
    digest = hashlib.sha256()

    class Sink:
        def write(self, data: bytes, /) -> int:
            digest.update(data)
            return len(data)

    write_tensor(tensor, Sink())
    return digest.digest()
