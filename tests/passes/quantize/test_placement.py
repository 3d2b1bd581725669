"""Which sites run in INT8, which values are quantised for them, and which share a scale."""

from __future__ import annotations

from graphs import graph

from onnxcomp.model.normalize import normalize
from onnxcomp.passes.quantize.placement import quantized_values, settle, ties
from onnxcomp.passes.quantize.sites import find_sites

HEAD = "g (float[N,4,8,8] x, float[4,4,1,1] w, float[4,4,1,1] w2) => (float[a,b,c,d] y)"


def settled(body, head=HEAD, excluded=frozenset()):
    return settle(find_sites(normalize(graph(f"{head} {{ {body} }}")).model, (), ())[0], excluded)


def names(sites):
    return {s.name for s in sites}


def test_arithmetic_between_two_convolutions_runs_in_integers():
    assert names(settled("a = Conv(x, w) s = Sigmoid(a) y = Conv(s, w2)")) == {"Conv_a", "Sigmoid_s", "Conv_y"}


def test_arithmetic_that_no_integer_reader_follows_or_that_floats_feed_stays_float():
    assert names(settled("a = Conv(x, w) y = Sigmoid(a)")) == {"Conv_a"}
    assert names(settled("s = Sigmoid(x) y = Conv(s, w)")) == {"Conv_y"}


def test_losing_one_node_of_a_chain_strands_its_neighbours():
    chain = "a = Conv(x, w) p = MaxPool<kernel_shape = [2, 2]>(a) s = Sigmoid(p) q = LeakyRelu(s) y = Conv(q, w2)"
    assert len(settled(chain)) == 5
    assert names(settled(chain, excluded=frozenset({"Sigmoid_s"}))) == {"Conv_a", "Conv_y"}


def test_a_value_that_a_convolution_quantises_anyway_feeds_others_too():
    # x is written as integers for the convolution, so the Add has two integer operands.
    assert "Add_s" in names(settled("a = Conv(x, w) s = Add(a, x) y = Conv(s, w2)"))


def test_an_add_of_an_integer_and_a_float_tensor_stays_float():
    assert "Add_s" not in names(settled("a = Conv(x, w) t = Tanh(x) s = Add(a, t) y = Conv(s, w2)"))


def test_inputs_are_quantised_for_their_readers_and_outputs_for_everybody():
    values, replaced = quantized_values(settled("a = Conv(x, w) t = Tanh(a) y = Conv(t, w2)"))
    assert set(values) == {"x", "a", "t", "y"}
    assert replaced == {"a", "y"}


def test_a_matrix_product_that_no_integer_node_reads_gives_floats():
    sites = settled("m = MatMul(x, w) y = Tanh(m)", "g (float[N,8] x, float[8,8] w) => (float[N,8] y)")
    values, replaced = quantized_values(sites)
    assert (set(values), replaced) == ({"x"}, set())


def test_a_chain_of_moving_operators_shares_the_scale_of_its_head():
    sites = settled(
        """a = Conv(x, w)
        p = MaxPool<kernel_shape = [2, 2]>(a)
        t = Transpose<perm = [0, 1, 3, 2]>(p)
        i = Constant<value = int64[4] {0, 4, -1, 1}>()
        r = Reshape(t, i)
        y = Conv(r, w2)"""
    )
    assert ties(sites) == {"p": "a", "t": "a", "r": "a"}


def test_both_parts_of_a_split_share_the_scale_of_the_whole():
    sites = settled(
        "a = Conv(x, w) p, q = Split<axis = 2, num_outputs = 2>(a) s = Add(p, q) y = Conv(s, w2)".replace(
            ", num_outputs = 2", ""
        )
    )
    assert ties(sites) == {"p": "a", "q": "a"}
