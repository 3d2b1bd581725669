"""Channel pruning: whole channels are cut out, and what is left is refitted to the original."""
