"""Figures of small models are not rounded to nothing."""

from onnxcomp.report.figures import macs, size


def test_a_few_bytes_and_a_few_multiplications_are_shown_as_such():
    assert [size(8), size(999), size(1_000)] == ["8 B", "999 B", "1.0 kB"]
    assert [macs(640), macs(16_384), macs(None)] == ["640", "16.4 k", "unknown"]
