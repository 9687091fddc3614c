"""Captions in bulk: inputs, outputs and engines, every input exactly once in the output or the rejects."""

BATCH = 32
"""Images or videos captioned together, unless a number is given."""
