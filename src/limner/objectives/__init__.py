"""Objectives: from log-probabilities and targets to the policy loss. One file each; the file's name is its name in recipes."""
