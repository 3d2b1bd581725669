"""The canonical form that every pass starts from.

Functions inlined, Constant nodes lifted to initializers, initializers taken out of the graph inputs of old models,
opset ≥ 13 where it can be lifted, decomposed LayerNormalization and Gelu recognised as one operator, every node and
value named once, dead nodes removed, topological order. No arithmetic on weights: that is `simplify`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from onnxcomp.model import shapes
from onnxcomp.model.recognition import needed_opsets, recognise
from onnxcomp.ops import upgrade
from onnxcomp.ops.attributes import bodies, is_standard
from onnxcomp.ops.definitions import definition
from onnxcomp.ops.limits import minimum_ir_version


@dataclass(frozen=True)
class Normalized:
    """The canonical model, and what was recognised or could not be had (sentences for the report)."""

    model: ir.Model
    notes: tuple[str, ...]


def normalize(model: ir.Model) -> Normalized:
    """Returns the canonical form of `model`; the argument is not changed.

    Names of the graph's inputs and outputs stay. Weights are shared with the argument, not copied.
    """
    notes: list[str] = []
    result = _inlined(model, notes)
    _lift_constants(result)
    _close_defaults(result, notes)
    _type_constants(result)
    result = _lifted(result, notes)
    for step in (common.RemoveUnusedNodesPass(), common.TopologicalSortPass()):
        step(result)
    name_nodes(result)
    name_values(result)
    shapes.refresh(result, keep_foreign=True)
    result = _recognised(result, notes)
    opset = result.opset_imports.get("", upgrade.TARGET_OPSET)
    # Before IR 4 an initializer had to be an input.
    result.ir_version = max(result.ir_version, minimum_ir_version(opset), 4)
    return Normalized(result, tuple(notes))


def clone(model: ir.Model) -> ir.Model:
    """A copy of the graph that shares the weights."""
    copied = model.clone()
    copied.opset_imports.update(model.opset_imports)
    copied.meta.update(copy.copy(model.meta))
    return copied


def giving(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy whose outputs are these values of the main graph, and no others."""
    copied = clone(model)
    values = ir.convenience.create_value_mapping(copied.graph)
    copied.graph.outputs.clear()
    copied.graph.outputs.extend(values[name] for name in names)
    return copied


def name_nodes(model: ir.Model) -> None:
    """Gives every node a unique name; names that are there and unique stay."""
    taken: set[str] = set()
    unnamed: list[ir.Node] = []
    for node in model.graph.all_nodes():
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            unnamed.append(node)
    for node in unnamed:
        base = f"{node.op_type}_{node.outputs[0].name}" if node.outputs and node.outputs[0].name else node.op_type
        node.name = free_name(base, taken)


def name_values(model: ir.Model) -> None:
    """Renames values whose name is taken in their graph or in one around it; inputs, outputs and older names stay."""
    _name_values(model.graph, {v.name for v in model.graph.outputs if v.name}, set(model.graph.outputs))


def _name_values(graph: ir.Graph, taken: set[str], fixed: set[ir.Value]) -> None:
    """Names of a graph and its bodies. `taken`: names around it; left as it was, for the next body beside this one."""
    own: list[str] = []
    seen = set(fixed)
    nodes = tuple(graph)
    made = (value for node in nodes for value in node.outputs)
    for value in (*graph.inputs, *graph.initializers.values(), *made):
        # A value without a name is an optional output that is left out.
        if value in seen or not value.name:
            continue
        seen.add(value)
        if value.name in taken:
            value.name = free_name(value.name, taken)
        taken.add(value.name)
        own.append(value.name)
    for node in nodes:
        for body in bodies(node):
            _name_values(body, taken, set())
    taken.difference_update(own)


def free_name(base: str, taken: set[str]) -> str:
    """`base`, or with the first number that makes it new; the name is taken then."""
    if base not in taken:
        taken.add(base)
        return base
    # Numbers are given in turn, so the border is found by halving: a hostile model has a million nodes of one name.
    low, high = 0, 1
    while f"{base}_{high}" in taken:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if f"{base}_{middle}" in taken else (low, middle)
    taken.add(f"{base}_{high}")
    return f"{base}_{high}"


def _lift_constants(model: ir.Model) -> None:
    """Makes initializers of Constant nodes, those in bodies included."""
    for node in model.graph.all_nodes():
        value = node.attributes.get("value") if node.op_type == "Constant" and is_standard(node) else None
        if value is not None and value.type == ir.AttributeType.TENSOR:
            node.attributes["value"] = ir.AttrTensor("value", _alias(value.as_tensor()))
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _alias(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same content in another object: onnx-ir writes the initializer's name into it, and the argument shares it."""
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(tensor.numpy(), shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)
    return ir.LazyTensor(lambda: tensor, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def _close_defaults(model: ir.Model, notes: list[str]) -> None:
    """Takes initializers out of the inputs; from IR 4 on those were inputs with a default, which callers could set."""
    defaults = [v for v in model.graph.inputs if v.is_initializer()]
    if not defaults:
        return
    inputs = [v for v in model.graph.inputs if not v.is_initializer()]
    model.graph.inputs.clear()
    model.graph.inputs.extend(inputs)
    if model.ir_version >= 4:
        notes.append(
            f"{len(defaults)} inputs had a default value in the file (initializers among the inputs, "
            f"{defaults[0].name} for one); they are constants now"
        )


def _type_constants(model: ir.Model) -> None:
    """Types and shapes of initializers are those of their tensors; a file may declare others beside them."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.dtype, value.shape = value.const_value.dtype, ir.Shape(value.const_value.shape.numpy())


def _inlined(model: ir.Model, notes: list[str]) -> ir.Model:
    """A copy without functions, or one with all of them and the reason."""
    result = clone(model)
    if not result.functions:
        return result
    domains = {function.domain for function in result.functions.values()}
    try:
        for function in result.functions.values():
            _align_opset(function, result)
        common.InlinePass()(result)
    # The two that onnx-ir's inliner raises for what it does not support.
    except (ValueError, ir.passes.PreconditionError) as error:
        notes.append(f"the model's functions could not be inlined, and are left as they are: {error}")
        return clone(model)
    result.functions.clear()
    for domain in domains - {node.domain for node in result.graph.all_nodes()}:
        result.opset_imports.pop(domain, None)
    name_values(result)
    return result


def _align_opset(function: ir.Function, model: ir.Model) -> None:
    """Declares the model's opset for a function of another one, where all its operators are the same in both."""
    here, there = function.opset_imports.get(""), model.opset_imports.get("")
    if here is None or there is None or here == there:
        return
    for node in function.all_nodes():
        # Constant has only gained forms.
        if (
            is_standard(node)
            and node.op_type != "Constant"
            and _since(node.op_type, here) != _since(node.op_type, there)
        ):
            raise ValueError(
                f"{node.op_type} differs between opset {here} (in {function.name}) and {there} (the model)"
            )
    function.opset_imports[""] = there


def _since(op_type: str, opset: int) -> int | None:
    known = definition(op_type, opset)
    return None if known is None else int(known.since_version)


def _lifted(model: ir.Model, notes: list[str]) -> ir.Model:
    """The model at opset 13 or later, or as it was with the reason."""
    opset = model.opset_imports.get("", upgrade.TARGET_OPSET)
    if opset >= upgrade.TARGET_OPSET:
        return model
    candidate = clone(model)
    # The rules read ranks and dtypes; old exporters often leave them out.
    shapes.refresh(candidate)
    try:
        upgrade.lift(candidate)
    except upgrade.CannotLift as error:
        notes.append(f"opset {opset} could not be lifted to {upgrade.TARGET_OPSET}: {error}")
        return model
    return candidate


def _recognised(model: ir.Model, notes: list[str]) -> ir.Model:
    """The model with standard operators in the place of their arithmetic, at the opset that has them."""
    before = model.opset_imports.get("", upgrade.TARGET_OPSET)
    for needed in needed_opsets(model) if before >= upgrade.TARGET_OPSET else ():
        candidate = clone(model)
        try:
            _lift_to(candidate, needed)
        except upgrade.CannotLift as error:
            notes.append(f"operators of opset {needed} stay written as arithmetic, because it can't be lifted: {error}")
            continue
        found = ", ".join(f"{count} {op_type}" for op_type, count in recognise(candidate).items())
        lifted = f"; opset {before} → {needed}" if needed > before else ""
        notes.append(f"written as arithmetic, recognised as one operator: {found}{lifted}")
        common.RemoveUnusedNodesPass()(candidate)
        name_values(candidate)
        shapes.refresh(candidate, keep_foreign=True)
        return candidate
    return model


def _lift_to(model: ir.Model, opset: int) -> None:
    """Raises CannotLift also where a function that was not inlined has an opset of its own."""
    if upgrade.lift(model, opset) and model.functions:
        raise upgrade.CannotLift("it holds functions that could not be inlined")
    name_nodes(model)
    name_values(model)
