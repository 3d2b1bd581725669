"""Static INT8: where (placement), how far (ranges), how (affine), written as QDQ (write), and what the runtime made
of it (audit)."""
