"""Runs a recipe step by step, each step behind its gates, and fills the report: what the command line and `onnxcomp.optimize` call."""
