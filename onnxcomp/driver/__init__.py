"""Runs a recipe step by step, each behind its gates, and fills the report: what the command line and Python call."""
