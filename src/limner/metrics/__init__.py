"""Measures of captions: pure functions of texts, scores and embeddings. Rewards may use them."""
