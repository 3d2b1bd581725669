"""Standard operators that exporters write as arithmetic, one module for each."""
