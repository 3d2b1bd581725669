"""Dynamic INT8: weights as int8, activations quantised at run time by their own range; needs no calibration data.

Where (sites, recurrent), as data (plan), and how it is written (products, recurrent).
"""
