"""Placement: which sites run in INT8, so that the integer region is contiguous and nothing is converted in vain."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from onnxcomp.ops.attributes import is_constant
from onnxcomp.ops.kernels import Role
from onnxcomp.passes.quantize.plan import Island
from onnxcomp.passes.quantize.sites import Site


def settle(sites: Sequence[Site], excluded: frozenset[str] = frozenset()) -> list[Site]:
    """The largest set of sites without `excluded` in which no site is converted in vain.

    WEIGHTED sites stay: they are why one quantises. So do those that stand alone. COMPUTED and CARRIED sites stay only
    between INT8 neighbours: every activation that they read is INT8 anyway, and at least one INT8 site reads what they
    write. Removing one can strand its neighbours, so they are asked again, each at most once for each neighbour that
    left: linear in the graph.
    """
    kept: dict[int, Site] = {id(s.node): s for s in sites if s.name not in excluded}
    readers: dict[int, set[int]] = defaultdict(set)
    writer: dict[int, int] = {}
    wanted: dict[int, int] = defaultdict(int)
    for key, site in kept.items():
        for value in site.outputs:
            writer[id(value)] = key
        for value in site.inputs:
            readers[id(value)].add(key)
            wanted[id(value)] += site.kernel.role is Role.WEIGHTED
    queue = deque(kept)
    while queue:
        key = queue.popleft()
        if key not in kept or kept[key].kernel.role is Role.WEIGHTED or kept[key].alone:
            continue
        site = kept[key]
        fed = all(is_constant(v) or writer.get(id(v)) in kept or wanted[id(v)] > 0 for v in site.inputs)
        read = any(r in kept for v in site.outputs for r in readers[id(v)])
        if fed and read:
            continue
        del kept[key]
        queue.extend(r for v in site.outputs for r in readers[id(v)])
        queue.extend(writer[id(v)] for v in site.inputs if id(v) in writer)
    return list(kept.values())


def quantized_values(sites: Iterable[Site]) -> tuple[dict[str, ir.Value], set[str]]:
    """Activations that are written as uint8, by name, and those among them that *every* reader takes from there.

    A value is quantised when an INT8 site reads it, or when an INT8 site writes it whose kernel exists only with an
    integer output. The second set holds what INT8 sites write: the float original must not be read any more, or the
    kernel is not fused.
    """
    sites = list(sites)
    values = {v.name or "": v for s in sites for v in s.inputs if not is_constant(v)}
    replaced: set[str] = set()
    for site in sites:
        for value in site.outputs:
            name = value.name or ""
            if site.output_quantized or name in values:
                values[name] = value
                replaced.add(name)
    return values, replaced


def ties(sites: Iterable[Site]) -> dict[str, str]:
    """Output of a CARRIED site → the tensor at the head of its chain, whose scale it must share."""
    head: dict[str, str] = {}
    for site in sites:
        if site.kernel.role is Role.CARRIED:
            source = site.inputs[0].name or ""
            for value in site.outputs:
                head[value.name or ""] = head.get(source, source)
    return head


def islands(sites: Sequence[Site], macs: Mapping[str, int], elements: Mapping[str, int]) -> tuple[Island, ...]:
    """Connected INT8 regions: sites that hand integers to each other.

    Args:
        sites: The sites in INT8.
        macs: By node name.
        elements: By value name, of one call.
    """
    parent = {s.name: s.name for s in sites}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    writer = {id(v): s.name for s in sites for v in s.outputs}
    members: dict[str, set[str]] = defaultdict(set)
    border: dict[str, int] = defaultdict(int)
    nodes = {(id(s.node), id(v)) for s in sites for v in s.inputs}
    for site in sites:
        for value in site.inputs:
            if id(value) in writer:
                parent[find(site.name)] = find(writer[id(value)])
            elif not is_constant(value):
                border[site.name] += elements.get(value.name or "", 0)
        for value in site.outputs:
            float_uses = sum((id(u.node), id(value)) not in nodes for u in value.uses()) + value.is_graph_output()
            border[site.name] += float_uses * elements.get(value.name or "", 0)
    for site in sites:
        members[find(site.name)].add(site.name)
    return tuple(
        Island(
            nodes=tuple(sorted(names)),
            macs=sum(macs.get(n, 0) for n in names),
            border=sum(border[n] for n in names),
        )
        for names in members.values()
    )
