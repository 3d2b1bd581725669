"""Data to learn from and to judge by: readers of feeds, the hold-out split, statistics of any tensor, streamed."""
