"""A model on disk and in memory: load, preflight, containment, normalize, shapes, cost, signature, save."""
