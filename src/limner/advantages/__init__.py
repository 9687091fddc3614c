"""Advantages: from scores to what the objective pushes towards; a file each, named as in recipes."""
