"""Probes, statistics, tables and reports over the records of all modalities."""

from shared_eval.startup import start_command

start_command("core")
