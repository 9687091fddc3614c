"""Data sources: one file each with a class `Source`; how their images are opened and batched."""
