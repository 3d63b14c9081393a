"""Quick-thought sentence embeddings trained on running text."""
