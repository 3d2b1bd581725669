"""What was done, what was not and why, and what was measured: structures and their views."""
