"""Speed and memory, measured: ``python -m benchmarks``; results lie in ``benchmarks/results``."""

from core.training.threads import let_waiting_threads_sleep

let_waiting_threads_sleep()  # as the commands do; the parts import torch before ``main`` is called
