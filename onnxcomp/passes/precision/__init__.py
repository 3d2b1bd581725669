"""16-bit floats: float16 or bfloat16 wherever ranges and operators allow."""
