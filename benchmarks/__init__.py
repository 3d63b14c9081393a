"""Speed and memory studies; their results lie in ``benchmarks/results``."""
