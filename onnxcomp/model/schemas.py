"""Do the nodes of standard operators have the inputs, outputs and attributes that ONNX defines for them?

ONNX Runtime refuses what is refused here (save a Constant with odd attributes: it makes a weight of the first one).
It is said before any of our code meets the node, so that a rewrite may take the first input of a Relu for granted.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import defs

from onnxcomp.errors import DAMAGED, ModelError
from onnxcomp.model.naming import Container, describe
from onnxcomp.ops.definitions import definition
from onnxcomp.report.text import printable


def check_schemas(container: Container, opsets: Mapping[str, int]) -> None:
    """Compares every node of a graph or function body, subgraphs aside, with the definition of its operator.

    Args:
        container: What holds the nodes.
        opsets: Version by domain; the standard one as "".

    Raises:
        ModelError: With the node, and what is wrong with it.
    """
    for node in container.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        schema = definition(node.op_type, opsets.get(domain, 0), domain)
        if schema is not None:
            _check(node, schema)


def _check(node: onnx.NodeProto, schema: defs.OpSchema) -> None:
    for what, found, least, most in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not least <= found <= most:
            wanted = str(least) if least == most else f"{least} to {most}" if most < 2**31 - 1 else f"at least {least}"
            raise ModelError(f"{describe(node)} has {found} {what}; the operator has {wanted}", hint=DAMAGED)
    for what, names, formal in (("input", node.input, schema.inputs), ("output", node.output, schema.outputs)):
        for name, parameter in zip(names, formal, strict=False):
            if not name and parameter.option == defs.OpSchema.FormalParameterOption.Single:
                raise ModelError(f"{describe(node)} leaves out its {what} '{parameter.name}'", hint=DAMAGED)
    given = set()
    for attribute in node.attribute:
        name = attribute.name
        if name in given:
            raise ModelError(f"{describe(node)} has the attribute '{printable(name)}' twice", hint=DAMAGED)
        given.add(name)
        known = schema.attributes.get(name)
        if known is None:
            raise ModelError(f"{describe(node)} has no attribute '{printable(name)}' by its definition", hint=DAMAGED)
        if not attribute.ref_attr_name and attribute.type != known.type.value:
            raise ModelError(
                f"the attribute '{printable(name)}' of {describe(node)} is a "
                f"{onnx.AttributeProto.AttributeType.Name(attribute.type)}, not a {known.type.name}",
                hint=DAMAGED,
            )
    for name, known in schema.attributes.items():
        if known.required and name not in given:
            raise ModelError(f"{describe(node)} lacks the attribute '{name}'", hint=DAMAGED)
