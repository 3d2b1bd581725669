"""Judging a model: fidelity to the original, metrics on labels, gates, proofs of equality."""
