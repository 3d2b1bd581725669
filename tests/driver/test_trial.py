"""Sizes for dynamic inputs are found by running the model."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp.driver.trial import NotRunnable, check_sizes, runnable_shapes, shape_candidates, table_limits
from onnxcomp.errors import LimitError, ModelError
from onnxcomp.model.signature import signature
from onnxcomp.runtime.child import Limits
from onnxcomp.runtime.session import SessionConfig


def shapes_for(model, given=None):
    return runnable_shapes(model, signature(model), given or {}, SessionConfig(), 0, Limits(seconds=60))


def test_the_batch_is_one_and_other_dynamic_dimensions_get_a_size_that_runs():
    model = graph(
        """g (float[batch,3,H,W] x, float[4,3,5,5] w) => (float[batch,4,h,v] y) {
            y = Conv<strides = [2, 2]>(x, w)
        }"""
    )
    assert shapes_for(model) == {"x": (1, 3, 64, 64)}


def test_a_size_that_the_model_refuses_leads_to_the_next_one():
    model = graph("""g (float[N,D] x, float[224,4] w) => (float[N,4] y) { y = MatMul(x, w) }""")
    assert shapes_for(model) == {"x": (1, 224)}


def test_given_sizes_win_over_candidates():
    model = graph("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }")
    assert next(shape_candidates(signature(model), {"H": (40,), "N": (2,)})) == {"x": (2, 3, 40, 64)}
    assert next(shape_candidates(signature(model), {"x": (1, 3, 9, 9)})) == {"x": (1, 3, 9, 9)}


def test_a_model_that_no_random_feed_suits_says_so_and_names_the_inputs():
    model = graph("g (float[N,D] x, float[7,4] w) => (float[N,4] y) { y = MatMul(x, w) }")
    with pytest.raises(NotRunnable, match="random feeds") as raised:
        shapes_for(model)
    assert "--shape" in (raised.value.hint or "")


def test_a_model_that_does_not_load_is_no_matter_of_sizes():
    model = graph("g (float[N] x) => (float[N] y) { y = com.microsoft.NoSuchOperator(x) }")
    with pytest.raises(ModelError) as raised:
        shapes_for(model)
    assert not isinstance(raised.value, NotRunnable)


def test_integers_that_index_a_table_stay_inside_it():
    model = graph(
        """g (int64[N,S] ids, float[11,4] w) => (float[N,S,4] y) {
            flat = Identity(ids)
            y = Gather(w, flat)
        }""",
        w=np.zeros((11, 4), np.float32),
    )
    assert table_limits(model) == {"ids": 11}


def test_a_name_that_only_says_dynamic_is_not_a_batch():
    model = graph(
        "g (float[DynamicDimension.0,3,DynamicDimension.1,8] x) => (float[a,b,c,d] y) { y = Relu(x) }".replace(".", "_")
    )
    assert next(shape_candidates(signature(model), {})) == {"x": (1, 3, 64, 8)}


def test_a_value_that_does_not_fit_into_memory_is_named_before_anything_runs():
    model = graph("g (float[N,3] x, int64[2] n = {1, 4}) => (float[M,3] y) { t = Tile(x, n) y = Tile(t, n) }")
    check_sizes(model, {"x": (1000, 3)}, memory=200_000)
    with pytest.raises(LimitError, match=r"'y' takes 0\.19 MB: its shape is \[1000, 48\]"):
        check_sizes(model, {"x": (1000, 3)}, memory=100_000)
    check_sizes(model, {}, memory=100)


@pytest.mark.parametrize("kind", ["string[N] x", "seq(float[N,3]) x"])
def test_inputs_without_numbers_ask_for_real_feeds_and_not_for_sizes(kind):
    read = "y = Identity(x)"
    out = kind.replace(" x", " y")
    model = graph(f"g ({kind}) => ({out}) {{ {read} }}")
    with pytest.raises(NotRunnable, match="takes no numbers") as raised:
        shapes_for(model)
    assert "--shape" not in (raised.value.hint or "")


def test_an_input_that_is_empty_by_its_own_shape_is_the_model_s_matter_and_no_wrong_usage():
    with pytest.raises(NotRunnable, match="empty by its own shape"):
        shapes_for(graph("g (float[0,3] x) => (float[0,3] y) { y = Relu(x) }"))
