"""Advantages: from scores to what the objective pushes towards. One file each; the file's name is its name in recipes."""
