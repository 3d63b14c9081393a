"""Quick-thought sentence embeddings from running text."""
