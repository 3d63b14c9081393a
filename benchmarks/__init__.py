"""Speed and memory, measured: ``python -m benchmarks``; results lie in ``benchmarks/results``."""
