"""Connected components, vectorised: which atoms are tied, directly or through others."""

from __future__ import annotations

import numpy as np


def components(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest member of each element's component.

    Both ends of every tie take the smaller representative of the two, and representatives are followed to the end,
    until nothing changes (hooking and pointer jumping: Shiloach, Vishkin 1982).

    Args:
        count: Number of elements.
        a, b: int [ties]: the tied pairs.

    >>> components(5, np.array([0, 3]), np.array([1, 1])).tolist()
    [0, 0, 2, 0, 4]
    """
    root = np.arange(count)
    while len(a):
        one, other = root[a], root[b]
        apart = one != other
        if not apart.any():
            break
        a, b, one, other = a[apart], b[apart], one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while True:
            further = root[root]
            if (further == root).all():
                break
            root = further
    return root
