"""Frozen weights of 8 and 4 bits: which layers have them, their codes and scales, and the values that they stand for.

A device unpacks a matrix where it is multiplied with. Here that is done once, when a model is loaded: the frozen weights
of every path are then the values of the codes, so losses and gradients are those of unpacking on the way, and the clock
charges what the device does (`fedsim.cost`).
"""
