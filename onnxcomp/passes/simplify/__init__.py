"""Exact rewrites that make a graph smaller: constants, batch norms and pads folded; what does nothing removed."""
