from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.calibration.readers import DataKind, Reader, indexed
from onnxcomp.calibration.split import hold_out
from onnxcomp.errors import DataError


def reader(count: int, *, known: bool = True) -> Reader:
    feeds = [{"x": np.full(1, i)} for i in range(count)]
    if known:
        return indexed(lambda: feeds.__getitem__, count, name="set", labels=np.arange(count))
    return Reader(lambda: iter(feeds), DataKind.REAL, "set", None)


def values(part: Reader) -> list[int]:
    return [int(feed["x"][0]) for feed in part]


@given(count=st.integers(5, 40), known=st.booleans())
def test_the_last_fifth_judges_and_the_rest_teaches_without_overlap(count: int, known: bool) -> None:
    learn, judge, sentence = hold_out(reader(count, known=known))
    assert sentence is None
    assert values(learn) + values(judge) == list(range(count))
    assert len(judge) == count // 5
    if known:
        assert learn.labels is not None
        assert judge.labels is not None
        assert [*learn.labels, *judge.labels] == list(range(count))


def test_at_most_256_feeds_judge() -> None:
    learn, judge, _ = hold_out(reader(5000))
    assert (len(learn), len(judge)) == (4744, 256)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("known", [True, False])
def test_fewer_than_five_feeds_serve_both_and_it_is_said(count: int, known: bool) -> None:
    learn, judge, sentence = hold_out(reader(count, known=known))
    assert values(learn) == values(judge) == list(range(count))
    assert sentence is not None
    assert "already seen" in sentence
    assert len(learn) == count


@pytest.mark.parametrize("known", [True, False])
def test_no_feeds_are_an_error(known: bool) -> None:
    with pytest.raises(DataError, match="no feeds"):
        hold_out(reader(0, known=known))
