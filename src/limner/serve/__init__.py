"""An OpenAI-compatible service around one captioner."""
