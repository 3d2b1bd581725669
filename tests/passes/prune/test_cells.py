"""Which channels are chosen among each other, and which go together."""

from __future__ import annotations

import numpy as np
from graphs import graph
from pruning import analysed, studied


def test_channels_of_one_layer_are_a_cell_named_after_it():
    _, analysis = studied(
        graph(
            "g (float[N,6] x, float[6,8] w1, float[8,2] w2) => (float[N,2] y) { h = MatMul(x, w1) y = MatMul(h, w2) }"
        )
    )
    (cell,) = analysis.structure.cells
    assert (cell.name, cell.size, cell.exact) == ("MatMul_h", 8, True)
    assert (cell.producers, cell.consumers, cell.coupled_by) == (("MatMul_h",), ("MatMul_y",), ())


def test_whole_heads_of_attention_are_the_classes_of_queries_keys_and_values():
    _, analysis = analysed("attention_three_projections")
    heads = [cell for cell in analysis.structure.cells if len(cell.producers) == 3]
    assert heads, analysis.structure.cells
    widths = analysis.structure.atoms
    assert all(cell.size <= 16 for cell in heads), widths.count


def test_packed_queries_keys_and_values_keep_whole_heads():
    for name in ("attention_packed_gather", "attention_packed_split", "attention_packed_by_head"):
        _, analysis = analysed(name)
        packed = [c for c in analysis.structure.cells if any("Gemm" in p or "MatMul" in p for p in c.producers)]
        assert packed, name
        # Not "3": queries, keys and values themselves are no channels.
        assert all(cell.size != 3 for cell in analysis.structure.cells), name


def test_groups_stay_equally_large():
    """Offsets are the classes, the same in all four groups."""
    _, analysis = studied(
        graph(
            """g (float[N,3,8,8] x, float[16,3,1,1] w1, float[16,4,1,1] w2, float[2,16,1,1] w3) => (float[N,2,8,8] y)
            { a = Conv(x, w1) b = Conv<group=4>(a, w2) y = Conv(b, w3) }"""
        )
    )
    assert {cell.size for cell in analysis.structure.cells} == {4}


def test_statistics_over_channels_make_a_cell_approximate():
    for norm, exact in (("LayerNormalization", False), ("Softplus", True)):
        inputs = "h, w_s" if norm == "LayerNormalization" else "h"
        _, analysis = studied(
            graph(
                f"""g (float[N,6] x, float[6,8] w1, float[8] w_s, float[8,2] w2) => (float[N,2] y)
                {{ h = MatMul(x, w1) k = {norm}({inputs}) y = MatMul(k, w2) }}"""
            )
        )
        (cell,) = analysis.structure.cells
        assert cell.exact is exact


def test_channels_of_a_concat_are_cells_of_their_own():
    """Rank by rank over both operands would empty one of them."""
    _, analysis = studied(
        graph(
            """g (float[N,6] x, float[6,8] w1, float[6,4] w2, float[12,2] w3) => (float[N,2] y)
            { a = MatMul(x, w1) b = MatMul(x, w2) c = Concat<axis=1>(a, b) y = MatMul(c, w3) }"""
        )
    )
    assert sorted(cell.size for cell in analysis.structure.cells) == [4, 8]


def test_kept_atoms_are_those_of_the_kept_classes():
    model, analysis = studied(
        graph(
            """g (float[N,2,3,3] x, float[4,2,1,1] w1, float[36,2] w2) => (float[N,2] y)
            { a = Conv(x, w1) f = Flatten(a) y = MatMul(f, w2) }"""
        )
    )
    structure = analysis.structure
    stays = structure.kept_atoms({structure.cells[0].name: np.array([0, 3])})
    weight = model.graph.initializers["w2"]
    rows = structure.atoms.axes[weight][0]
    assert stays[rows].tolist() == [True] * 9 + [False] * 18 + [True] * 9


def test_a_locked_axis_says_why():
    model, analysis = studied(
        graph("g (float[N,6] x, float[6,8] w1) => (float[N,8] y) { h = MatMul(x, w1) y = Softmax(h) }")
    )
    lock = analysis.structure.lock_of(analysis.structure.atoms.axes[model.graph.initializers["w1"]][1])
    assert lock is not None
    assert (lock.node, lock.op_type) == ("Softmax_y", "Softmax")
    assert analysis.structure.lock_of(None) is None


def test_the_order_of_the_cells_is_that_of_the_graph():
    _, analysis = analysed("resnet_with_batch_norm")
    names = [node.name for node in analysis.structure.atoms.nodes]
    first = [names.index(cell.producers[0]) for cell in analysis.structure.cells if cell.producers]
    assert first == sorted(first)
