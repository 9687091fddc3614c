"""Rewards, one file each: the file's name is the name in a recipe."""
