"""Denoisers: their process, adapters, costs and scores."""
