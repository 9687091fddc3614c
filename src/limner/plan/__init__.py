"""What a recipe takes: memory a term, time a step, and how many captions may go through at once.

Nothing is loaded and nothing is computed: the recipe's own step runs on tensors without values (`shadow`).
"""
