"""Predicted beside measured: every public measurement of training on a device, predicted from the others."""
