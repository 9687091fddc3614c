"""Prism: how much of an image a caption holds, asked of a language model that sees the caption alone.

CapRL (arXiv 2509.22647) evaluates captioners so: the captioner writes n captions an image, a text-only
answerer answers a benchmark's questions from each of them, and the answers are scored as the benchmark does.
"""
