"""Objectives: from log-probabilities and targets to the policy loss; a file each, named as in recipes."""
