"""Options by keyword are checked before anything is read."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcomp.driver.options import options_of
from onnxcomp.errors import UsageError


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"thread": 2}, "unknown option 'thread'"),
        ({"threads": "two"}, "option 'threads' is 'two'"),
        ({"threads": -1}, "greater than or equal to 0"),
        ({"only": "Conv"}, "option 'only' is 'Conv'"),
        ({"ep": "gpu"}, "'cpu' or 'cuda'"),
        ({"goal": "speed"}, "'balanced', 'latency' or 'size'"),
        ({"shape": {"x": (1, "a")}}, "option 'shape'"),
        ({"progress": 3}, "callable"),
        ({"time_limit": 0}, "greater than 0"),
    ],
)
def test_an_option_that_is_not_of_its_kind_is_named(options, told):
    with pytest.raises(UsageError, match=told) as error:
        options_of(None, None, options)
    assert error.value.exit_code == 2


def test_lists_and_numbers_of_numpy_are_taken_and_feeds_are_not_touched():
    feeds = iter([{}])
    options = options_of(feeds, None, {"only": ["Conv"], "threads": np.int64(2), "shape": {"x": [1, 2]}})
    assert (options.only, options.threads, options.shape["x"]) == (("Conv",), 2, (1, 2))
    assert options.calibration is feeds
