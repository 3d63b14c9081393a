"""Runs a function in several processes that train as one."""

import os
import socket
import traceback

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from core.distributed import process_group


def in_processes(count, body, *arguments):
    """What ``body`` returns in each of ``count`` processes of a gloo group.

    Each imports the module of ``body``: one that imports little starts sooner.
    """
    answers = mp.get_context("spawn").SimpleQueue()
    context = mp.spawn(_process, (count, free_port(), answers, body, arguments), nprocs=count, join=False)
    results = dict(answers.get() for _ in range(count))
    context.join()
    failures = [result for result in results.values() if isinstance(result, str)]
    assert not failures, failures[0]
    return [results[number] for number in range(count)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _process(number, count, port, answers, body, arguments):
    environment = {"RANK": number, "WORLD_SIZE": count, "LOCAL_RANK": number, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in environment.items()}
    torch.set_num_threads(1)
    try:
        with process_group(torch.device("cpu")):
            answers.put((number, body(*arguments)))
            dist.barrier()
    except Exception:
        answers.put((number, traceback.format_exc()))
