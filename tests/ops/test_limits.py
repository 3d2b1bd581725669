"""The limits are compared with onnx's own release table and with the ONNX Runtime that is installed."""

from __future__ import annotations

import doctest
import itertools
import re

import onnx
import pytest

from onnxcomp.errors import UnavailableError, UsageError
from onnxcomp.ops import limits
from onnxcomp.ops.limits import OrtLimits, limits_of, minimum_ir_version


def _stamped(opset: int, ir_version: int) -> bytes:
    model = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["": {opset}]> g (float[1] x) => (float[1] y) {{ y = Relu(x) }}'
    )
    return model.SerializeToString()


def test_every_minor_release_from_1_17_to_1_31_has_its_own_row():
    assert {f"{major}.{minor}" for major, minor in limits._FIRST_WITH} == {f"1.{minor}" for minor in range(17, 32)}


def test_limits_never_fall_from_one_release_to_the_next():
    rows = [limits._FIRST_WITH[key] for key in sorted(limits._FIRST_WITH)]
    assert all(a.opset <= b.opset and a.ir_version <= b.ir_version for a, b in itertools.pairwise(rows))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.17", OrtLimits(20, 9)),
        ("1.20.1", OrtLimits(21, 10)),
        ("1.23.2", OrtLimits(23, 11)),
        ("1.24.0rc1", OrtLimits(25, 13)),
        ("1.31.1+cu130", OrtLimits(26, 13)),
        ("1.31.0.dev20261001", OrtLimits(26, 13)),
    ],
)
def test_a_version_is_read_by_its_first_two_numbers(version: str, expected: OrtLimits):
    assert limits_of(version) == expected


def test_a_release_newer_than_the_table_has_the_limits_of_the_newest_row():
    assert limits_of("1.99.0") == limits_of("2.0.0") == limits._FIRST_WITH[max(limits._FIRST_WITH)]


def test_a_release_older_than_the_table_names_the_line_that_installs_a_newer_one():
    with pytest.raises(UnavailableError, match="pip install") as caught:
        limits_of("1.9.0")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["", "latest", "1", "v1.24"])
def test_what_is_not_a_version_is_a_usage_error(text: str):
    with pytest.raises(UsageError, match="not a version"):
        limits_of(text)


def test_the_installed_onnxruntime_loads_exactly_what_the_table_says():
    ort = pytest.importorskip("onnxruntime")
    if tuple(int(n) for n in re.findall(r"\d+", ort.__version__)[:2]) > max(limits._FIRST_WITH):
        pytest.skip("newer than the table")
    told = limits_of(ort.__version__)

    def loads(opset: int, ir_version: int) -> bool:
        try:
            ort.InferenceSession(_stamped(opset, ir_version), providers=["CPUExecutionProvider"])
        except Exception:
            return False
        return True

    assert loads(told.opset, told.ir_version)
    assert not loads(told.opset + 1, told.ir_version)
    assert not loads(told.opset, told.ir_version + 1)


def test_the_minimum_ir_version_of_each_opset_is_that_of_onnx_own_release_table():
    released: dict[int, int] = {}
    for _, ir_version, opset, *_ in onnx.helper.VERSION_TABLE:
        released.setdefault(opset, ir_version)
    assert {opset: minimum_ir_version(opset) for opset in released} == released


def test_an_opset_of_the_future_needs_at_least_the_newest_ir_version_that_is_known():
    assert minimum_ir_version(99) == max(limits._LAST_OPSET_OF_IR)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(limits).failed == 0
