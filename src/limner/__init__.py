"""Trains image and video captioners by reinforcement learning, measures captions, and writes them in bulk."""

__version__ = "0.1.0"
