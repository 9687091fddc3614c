"""Captions in bulk: inputs, outputs and engines, every input exactly once in the output or the rejects."""
