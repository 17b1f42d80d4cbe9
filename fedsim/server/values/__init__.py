"""What training has computed: pending jobs, their results, the model from version to version, scores; no clock here.

Uses executors, rules, optimisers and what clients keep; the verbs of the server use it.
"""
