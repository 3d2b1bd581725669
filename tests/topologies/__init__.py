"""Generated models at realistic widths, one module for each family of networks; `prune_topologies` is the way in."""
