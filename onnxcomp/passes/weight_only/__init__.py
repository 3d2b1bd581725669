"""Weights of products as integers of 4 or 8 bits with a scale for each block along K; activations stay floats.

How matrices are cut and rounded (blocks), with which scales (grid: round to nearest, or searched) or against the
inputs' second moments (gptq, moments), chosen for each layer (candidates), as data (plan), and written (write).
"""
