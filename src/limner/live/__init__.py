"""Runs as they go on, read from their folders: in the terminal and in the browser; no torch."""
