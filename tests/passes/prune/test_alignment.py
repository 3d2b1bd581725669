"""Kept counts suit the kernels."""

from __future__ import annotations

import pytest

from onnxcomp.passes.prune.alignment import allowed_counts, rounded


@pytest.mark.parametrize(
    ("size", "unit", "allowed"),
    [
        (64, 16, (64, 48, 32, 16)),
        (64, 32, (64, 32)),
        (100, 16, (100, 96, 80, 64, 48, 32, 16)),
        (33, 16, (33, 32, 16)),
        (32, 16, (32, 16)),
        (40, 8, (40, 32, 24, 16, 8)),
        (5, 1, (5, 4, 3, 2, 1)),
        (1, 1, (1,)),
    ],
)
def test_counts_are_whole_units_of_channels(size: int, unit: int, allowed: tuple[int, ...]) -> None:
    assert allowed_counts(size, unit) == allowed


@pytest.mark.parametrize(
    ("size", "allowed"),
    [
        (31, (31,)),
        (30, (30,)),
        (24, (24, 12)),
        (16, (16, 8)),
        (20, (20,)),
        (8, (8, 4)),
        (6, (6,)),
        (4, (4,)),
        (1, (1,)),
    ],
)
def test_a_cell_below_two_units_keeps_all_or_a_half_that_is_a_multiple_of_four(
    size: int, allowed: tuple[int, ...]
) -> None:
    assert allowed_counts(size, 16) == allowed


@pytest.mark.parametrize(
    ("size", "channels_per_class", "allowed"),
    [
        (12, 64, tuple(range(12, 0, -1))),  # heads of 64 channels: every number of them is aligned
        (20, 8, (20, 18, 16, 14, 12, 10, 8, 6, 4, 2)),
        (20, 3, (20, 16)),  # 3 channels each: whole units of 16 channels are 16 classes
        (4, 4, (4, 2)),  # 16 channels, fewer than two units: all or 8
        (40, 6, (40, 32, 24, 16, 8)),
        (3, 8, (3,)),  # half of 3 classes is none
    ],
)
def test_the_unit_counts_channels_and_not_classes(size: int, channels_per_class: int, allowed: tuple[int, ...]) -> None:
    assert allowed_counts(size, 16, channels_per_class) == allowed


@pytest.mark.parametrize(
    ("size", "unit", "max_ratio", "allowed"),
    [
        (64, 16, 0.5, (64, 48, 32)),
        (64, 16, 0.0, (64,)),
        (64, 16, 1.0, (64, 48, 32, 16)),
        (10, 1, 0.3, (10, 9, 8, 7)),
        (24, 16, 0.4, (24,)),
    ],
)
def test_no_more_than_the_largest_share_goes(size: int, unit: int, max_ratio: float, allowed: tuple[int, ...]) -> None:
    assert allowed_counts(size, unit, max_ratio=max_ratio) == allowed


@pytest.mark.parametrize("unit", [1, 4, 8, 16])
def test_the_first_count_is_the_whole_cell_the_last_at_least_one_and_none_leaves_the_fast_path(unit: int) -> None:
    for size in range(1, 130):
        counts = allowed_counts(size, unit)
        assert counts[0] == size
        assert counts[-1] >= 1
        assert list(counts) == sorted(set(counts), reverse=True)
        assert all(count % min(unit, 4) == 0 for count in counts[1:])


def test_counts_are_rounded_up_to_an_allowed_one() -> None:
    allowed = allowed_counts(100, 16)
    assert [rounded(count, allowed) for count in (1, 16, 17, 95, 97, 100, 300)] == [16, 16, 32, 96, 100, 100, 100]


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        allowed_counts(0, 16)
