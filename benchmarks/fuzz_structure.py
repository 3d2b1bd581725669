"""Mutations of what a graph means: wires, operators, attributes, shapes, types, subgraphs. The bytes stay a model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

DTYPES = (1, 1, 10, 11, 6, 7, 9, 3, 2, 8, 16, 5, 12, 14)
"""Float most often, then float16, double, int32, int64, bool, int8, uint8, string, bfloat16, int16, uint32, complex."""

SIZES = (0, 1, 1, 2, 3, 4, 5, 8, 16, 17, 64, 1000, -1, 2**31, 2**40)
INTS = (0, 1, -1, 2, -2, 3, 5, 7, 16, 255, -100, 2**31, 2**62, -(2**63))
FLOATS = (0.0, 1.0, -1.0, 1e-12, 1e38, float("nan"), float("inf"))

Mutation = Callable[[onnx.GraphProto, random.Random], None]


def restructured(proto: onnx.ModelProto, rng: random.Random) -> None:
    """One change, in place. Raises IndexError where the model has no place for it."""
    if rng.random() < 0.05:
        rng.choice(proto.opset_import).version = rng.choice((1, 7, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 22, 23, 24))
        return
    graphs = list(_graphs(proto.graph))
    rng.choice(MUTATIONS)(proto.graph if rng.random() < 0.7 else rng.choice(graphs), rng)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _values(graph: onnx.GraphProto) -> list[str]:
    made = [name for node in graph.node for name in node.output if name]
    return [*(v.name for v in graph.input), *(t.name for t in graph.initializer), *made]


def leave_out(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    index = rng.randrange(len(node.input))
    if rng.random() < 0.5:
        node.input[index] = ""
    else:
        del node.input[index]


def rewire(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    index = rng.randrange(len(node.input))
    kind = rng.randrange(4)
    if kind == 0:
        node.input[index] = rng.choice(_values(graph))
    elif kind == 1:
        # What was made before it, so that the order holds.
        at = next(i for i, other in enumerate(graph.node) if other is node or other == node)
        made = [o for other in graph.node[:at] for o in other.output if o]
        node.input[index] = rng.choice([*(v.name for v in graph.input), *(t.name for t in graph.initializer), *made])
    elif kind == 2:
        node.input.append(node.input[index])
    else:
        other = rng.randrange(len(node.input))
        node.input[index], node.input[other] = node.input[other], node.input[index]


def swap_operator(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    node.op_type = rng.choice(
        [
            name
            for name, schema in SCHEMAS.items()
            if schema.min_input <= len(node.input) <= schema.max_input
            and schema.min_output <= len(node.output) <= schema.max_output
        ]
    )
    schema = SCHEMAS[node.op_type]
    if rng.random() < 0.9:
        kept = [a for a in node.attribute if a.name in schema.attributes]
        del node.attribute[:]
        node.attribute.extend(kept)
        for name, known in schema.attributes.items():
            if known.required and name not in {a.name for a in kept}:
                _give(node, name, known.type.value, rng)


def _give(node: onnx.NodeProto, name: str, kind: int, rng: random.Random) -> None:
    kinds = onnx.AttributeProto
    values: dict[int, Callable[[], object]] = {
        kinds.INT: lambda: rng.choice(INTS),
        kinds.INTS: lambda: [rng.choice(INTS) for _ in range(rng.randrange(5))],
        kinds.FLOAT: lambda: rng.choice(FLOATS),
        kinds.FLOATS: lambda: [rng.choice(FLOATS) for _ in range(rng.randrange(4))],
        kinds.STRING: lambda: rng.choice(("", "NOTSET", "SAME_UPPER", "VALID", "linear", "constant", "reverse", "x")),
        kinds.STRINGS: lambda: [rng.choice(("Tanh", "Sigmoid", "Relu", "x")) for _ in range(rng.randrange(5))],
        kinds.TENSOR: lambda: numpy_helper.from_array(
            np.ones([rng.randrange(3) for _ in range(rng.randrange(3))], np.float32)
        ),
    }
    if kind in values:
        attribute = onnx.AttributeProto(name=name, type=kind)
        value = values[kind]()
        fields = {kinds.INT: "i", kinds.FLOAT: "f", kinds.STRING: "s", kinds.TENSOR: "t"}
        if kind == kinds.TENSOR:
            attribute.t.CopyFrom(value)
        elif kind in fields:
            setattr(attribute, fields[kind], value.encode() if isinstance(value, str) else value)
        else:
            many = {kinds.INTS: "ints", kinds.FLOATS: "floats", kinds.STRINGS: "strings"}[kind]
            getattr(attribute, many).extend(v.encode() if isinstance(v, str) else v for v in value)  # type: ignore[attr-defined]
        node.attribute.append(attribute)


def change_attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice([n for n in graph.node if n.attribute])
    attribute = rng.choice(node.attribute)
    kind = rng.randrange(6)
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        attribute.type = rng.randrange(1, 12)
    elif kind == 2 and attribute.ints:
        index = rng.randrange(len(attribute.ints))
        attribute.ints[index] = rng.choice(INTS)
    elif kind == 3 and attribute.ints:
        if rng.random() < 0.5:
            attribute.ints.pop()
        else:
            attribute.ints.append(rng.choice(INTS))
    elif attribute.HasField("t"):
        change_tensor(attribute.t, rng)
    elif attribute.type == onnx.AttributeProto.GRAPH:
        raise IndexError
    else:
        name, told = attribute.name, attribute.type
        node.attribute.remove(attribute)
        _give(node, name, told, rng)


def add_attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice([n for n in graph.node if n.op_type in SCHEMAS])
    known = SCHEMAS[node.op_type].attributes
    name = rng.choice([n for n in known if n not in {a.name for a in node.attribute}])
    _give(node, name, known[name].type.value, rng)


def change_initializer(graph: onnx.GraphProto, rng: random.Random) -> None:
    change_tensor(rng.choice(graph.initializer), rng)


def change_tensor(tensor: onnx.TensorProto, rng: random.Random) -> None:
    """Another rank, size, type or value."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise IndexError
    array = numpy_helper.to_array(tensor)
    kind = rng.randrange(10)
    if kind == 0:
        array = array.reshape(-1)
    elif kind == 1:
        array = array[None] if rng.random() < 0.5 else array[..., None]
    elif kind == 2:
        array = array.reshape(-1)[:1].reshape(())
    elif kind == 3:
        array = array[:0]
    elif kind == 4:
        array = np.swapaxes(array, 0, -1)
    elif kind == 5:
        array = array[:-1] if rng.random() < 0.5 else np.concatenate([array, array])
    elif kind == 6:
        dtype = rng.choice((np.float32, np.float16, np.float64, np.int32, np.int64, np.bool_, np.int8, np.uint8))
        array = np.nan_to_num(array.astype(np.float64)).astype(dtype)
    elif kind == 7:
        array = array[0]
    elif array.dtype.kind in "iuf":
        array = array.copy()
        choices = FLOATS if array.dtype.kind == "f" else (0, 1, -1, 2, 7, 100, 2**30, -(2**30), 2**62)
        with np.errstate(all="ignore"):
            new = np.array(rng.choice(choices)).astype(array.dtype)
        if kind == 8:
            array[...] = new
        else:
            array.reshape(-1)[rng.randrange(array.size)] = new
    else:
        array = np.array(["x"], object)
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array) if array.ndim else array, name))


def lie(graph: onnx.GraphProto, rng: random.Random) -> None:
    """Another shape or type where one is declared, or one for a value that has none."""
    if rng.random() < 0.4:
        name = rng.choice([o for node in graph.node for o in node.output if o])
        shape = [rng.choice(SIZES[:12]) for _ in range(rng.randrange(6))]
        graph.value_info.append(helper.make_tensor_value_info(name, rng.choice(DTYPES), shape))
        return
    kind = rng.choice([graph.input, graph.input, graph.output, graph.value_info])
    tensor_type = rng.choice(kind).type.tensor_type
    what = rng.randrange(6)
    if what == 0:
        tensor_type.elem_type = rng.choice(DTYPES)
    elif what == 1:
        tensor_type.ClearField("shape")
    elif what == 2:
        tensor_type.shape.dim.add(dim_value=rng.choice(SIZES))
    elif what == 3:
        del tensor_type.shape.dim[rng.randrange(len(tensor_type.shape.dim))]
    else:
        dim = rng.choice(tensor_type.shape.dim)
        if rng.random() < 0.3:
            dim.dim_param = rng.choice(("N", "M", "", "K"))
        else:
            dim.dim_value = rng.choice(SIZES)


def cut_node(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A node out, and its input in the place of its output, or nothing there."""
    node = rng.choice(graph.node)
    if rng.random() < 0.8:
        old, new = node.output[0], node.input[0]
        for other in graph.node:
            for index, name in enumerate(other.input):
                if name == old:
                    other.input[index] = new
    graph.node.remove(node)


def double_node(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A node once more behind itself, on its own output or beside itself."""
    at = rng.randrange(len(graph.node))
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[at])
    old = node.output[0]
    new = f"{old}_more"
    node.output[0] = new
    for index in range(1, len(node.output)):
        node.output[index] = f"{node.output[index]}_more" if node.output[index] else ""
    if rng.random() < 0.7 and node.input:
        node.input[0] = old
    for other in graph.node[at + 1 :]:
        for index, name in enumerate(other.input):
            if name == old and rng.random() < 0.8:
                other.input[index] = new
    graph.node.insert(at + 1, node)


def nest(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A node into both branches of an If, or into a Loop's body that reads the values around it."""
    at = rng.randrange(len(graph.node))
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[at])
    outputs = [o for o in node.output if o]
    made = [onnx.ValueInfoProto(name=f"{o}_inside") for o in outputs]
    for info in made:
        info.type.tensor_type.elem_type = 1
    inside = onnx.NodeProto()
    inside.CopyFrom(node)
    for index, name in enumerate(inside.output):
        inside.output[index] = f"{name}_inside" if name else ""
    condition = f"{outputs[0]}_condition"
    graph.initializer.append(numpy_helper.from_array(np.array(rng.random() < 0.5), condition))
    branches = {
        name: helper.make_graph([inside], f"{name}_{outputs[0]}", [], made) for name in ("then_branch", "else_branch")
    }
    if rng.random() < 0.5:
        graph.initializer.pop()
        graph.input.append(helper.make_tensor_value_info(condition, 9, []))
    graph.node.remove(graph.node[at])
    graph.node.insert(at, helper.make_node("If", [condition], outputs, **branches))


def change_ends(graph: onnx.GraphProto, rng: random.Random) -> None:
    """Inputs, outputs and initializers take each other's places."""
    kind = rng.randrange(7)
    if kind == 0:
        graph.output.append(onnx.ValueInfoProto(name=rng.choice(_values(graph))))
        graph.output[-1].type.tensor_type.elem_type = 1
    elif kind == 1:
        tensor = rng.choice(graph.initializer)
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        if rng.random() < 0.5:
            graph.initializer.remove(tensor)
    elif kind == 2:
        value = rng.choice(graph.input)
        shape = [d.dim_value if 0 < d.dim_value < 33 else 2 for d in value.type.tensor_type.shape.dim]
        graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), value.name))
        graph.input.remove(value)
    elif kind == 3:
        tensor = rng.choice(graph.initializer)
        graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
        graph.initializer.remove(tensor)
    elif kind == 4:
        rng.choice(graph.output).name = rng.choice(_values(graph))
    elif kind == 5:
        value = graph.output.add()
        value.CopyFrom(rng.choice(graph.input))
    else:
        node = rng.choice(graph.node)
        node.name = rng.choice(("", rng.choice(graph.node).name))
        node.domain = rng.choice(("", "", "ai.onnx", "com.microsoft", "elsewhere"))


def change_outputs(graph: onnx.GraphProto, rng: random.Random) -> None:
    """An output of a node left out, or one that was left out wanted."""
    node = rng.choice(graph.node)
    if rng.random() < 0.5:
        node.output.append(f"{node.output[0]}_second")
    else:
        node.output[rng.randrange(len(node.output))] = ""


def _schemas() -> dict[str, defs.OpSchema]:
    newest: dict[str, defs.OpSchema] = {}
    for schema in defs.get_all_schemas_with_history():
        old = newest.get(schema.name)
        if schema.domain == "" and not schema.deprecated and (old is None or old.since_version < schema.since_version):
            newest[schema.name] = schema
    return dict(sorted(newest.items()))


SCHEMAS = _schemas()
MUTATIONS: tuple[Mutation, ...] = (
    *(leave_out, rewire, rewire, swap_operator, swap_operator, change_attribute, change_attribute, change_attribute),
    *(add_attribute, change_initializer, change_initializer, change_initializer, change_initializer, lie, lie, lie),
    *(cut_node, double_node, nest, nest, change_ends, change_ends, change_outputs),
)
"""As often as they stand here."""
