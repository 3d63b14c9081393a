"""Run what a table still lacks, then print it: ``python -m shared_eval.reproduce demo``.

``recipes`` reads a table's recipe, ``plan`` makes run specs of it, ``locate`` asks the modalities for their
folders, ``spec`` groups them into jobs and makes their commands, ``run`` runs the jobs, on this machine or a
Ray cluster, ``results`` shows their records.
"""

from shared_eval.reproduce.cli import ReproduceConfig, main

__all__ = ["ReproduceConfig", "main"]
