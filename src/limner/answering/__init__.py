"""Language models that answer: in this process, or behind an OpenAI-compatible endpoint."""
