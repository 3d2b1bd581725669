"""Exact rewrites that make a graph smaller: folding of constants, of batch norms and pads into weights, and removal of what does nothing."""
