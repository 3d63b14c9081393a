"""Train InfoGraph on a graph dataset: ``python -m graph.train --dataset MUTAG --objective hard --beta 1``."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from core import InfoGraphLoss
from core.io.digests import digest_of
from core.io.errors import InputError
from core.losses.infograph import Variant
from core.training.cli import command, parse_config
from core.training.config import TrainConfig, hardness_of
from core.training.group import RunGroup, of_run
from core.training.launch import launch_together
from core.training.loop import fit
from core.training.seeding import epoch_generator
from graph.batch import GraphBatch, make_batches
from graph.data import GraphDataset, load_dataset
from graph.encoder import make_models, state_of_run
from graph.evaluate import evaluate, represent_batch, samples

MAX_LISTED = 1000  # of --seeds, and of --betas


@dataclass(frozen=True, kw_only=True)
class GraphConfig(TrainConfig):
    """Train InfoGraph with a GIN encoder, evaluate it by a cross-validated SVM, and record both."""

    plain_objective: ClassVar[str] = "infograph"
    largest: ClassVar[Mapping[str, int]] = TrainConfig.largest | {"layers": 1000}

    dataset: str = "motifs"
    """motifs (embedded), a TUDataset of the paper (MUTAG, PTC_MR, ENZYMES, PROTEINS, DD, REDDIT-BINARY,
    IMDB-BINARY, IMDB-MULTI), or any other TUDataset's name."""
    objective: Literal["infograph", "debiased", "hard"] = "hard"
    """Named points of one formula: beta 0 and tau_plus 0, tau_plus > 0, beta > 0."""
    variant: Variant = "corrected"
    """corrected: as the derivation has it; released: as the authors' code has it."""
    stop_gradient: bool = False
    """Treat the negatives' weights as constants."""
    temperature: float | None = None
    """The Jensen-Shannon bound has none; here because the other modalities have it."""
    epochs: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    hidden: int = 32
    """Width of a GIN layer."""
    layers: int = 3
    """GIN layers."""
    prior_weight: float = 0.0
    """Weight of the prior term that InfoGraph's code offers."""
    seeds: str | None = None
    """Several seeds, as 0-9 or 0,3,5: their runs are trained together, each with a folder of its own."""
    betas: str | None = None
    """Several hardnesses, as 0,1,2,10, trained together at each seed; 0 is the debiased objective."""

    def checked(self) -> "GraphConfig":
        if self.temperature is not None:
            raise InputError(
                f"--temperature is {self.temperature:g}, but the graph objective, a Jensen-Shannon bound, "
                "has none; leave it out"
            )
        if self.batch_size < 2:
            raise InputError(f"--batch-size is {self.batch_size}; at least 2 graphs are needed for negatives")
        for name in ("hidden", "layers"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if not self.prior_weight >= 0:
            raise InputError(f"--prior-weight is {self.prior_weight}; it must be at least 0")
        return super().checked()

    def objective_slug(self) -> str:
        variant = [self.variant] if self.variant != "corrected" else []
        stopped = ["stopgradient"] if self.stop_gradient else []
        return "-".join([super().objective_slug(), *variant, *stopped])

    def objective_record(self) -> dict[str, Any]:
        return super().objective_record() | {"variant": self.variant, "stop_gradient": self.stop_gradient}


def recipe(objective: str = "hard", variant: str = "corrected") -> GraphConfig:
    """The defaults of an objective; InfoGraph's and HCL's settings are one for all graph datasets.

    The released variant's tau_plus is 0.5, the value that its code never changes.
    """
    beta, tau_plus = hardness_of(objective)
    if variant == "released" and tau_plus > 0:
        tau_plus = 0.5
    return GraphConfig(beta=beta, tau_plus=tau_plus)


def expand(config: GraphConfig) -> list[GraphConfig]:
    """A config for each of ``seeds`` and ``betas``; the one itself where neither is given."""
    if config.seeds is None and config.betas is None:
        return [config]
    if config.seeds is not None and config.seed != GraphConfig.seed:
        raise InputError(f"--seed is {config.seed} and --seeds {config.seeds}; leave one of them out")
    if config.betas is not None and config.objective != "hard":
        raise InputError(f"--betas is {config.betas}, but --objective {config.objective} has beta 0")
    seeds = [config.seed] if config.seeds is None else numbers(config.seeds, "seeds", int)
    betas = [config.beta] if config.betas is None else numbers(config.betas, "betas", float)
    one = replace(config, seeds=None, betas=None)
    runs = [replace(one, beta=beta, seed=seed).checked() for beta in betas for seed in seeds]
    if config.output_dir is None:
        return runs
    return [
        replace(run, output_dir=config.output_dir / run.objective_slug() / f"seed-{run.seed}") for run in runs
    ]


def numbers(text: str, name: str, kind: type[int] | type[float]) -> list[int] | list[float]:
    """The numbers of a list as ``0,1,2`` or, of integers, ``0-9``; raises InputError if it is none."""
    found = []
    try:
        for part in text.split(","):
            ends = re.fullmatch(r"(\d{1,10})-(\d{1,10})", part) if kind is int else None
            found += range(int(ends[1]), int(ends[2]) + 1)[: MAX_LISTED + 1] if ends else [kind(part)]
    except ValueError:
        found = []
    if not 0 < len(found) <= MAX_LISTED or len(set(found)) < len(found):
        example = "0-9 or 0,3,5" if kind is int else "0,1,2,10"
        raise InputError(
            f"--{name} is {text}; it must be different numbers, as {example}, and {MAX_LISTED} at most"
        )
    return found


def fingerprint(dataset: GraphDataset) -> dict[str, int | str]:
    """What tells other data from those that a run began with: counts, and digests of what batches hold."""
    graphs = dataset.graphs
    return {
        "graphs": len(graphs),
        "features": dataset.num_features,
        "labels": digest_of([torch.from_numpy(dataset.labels)]),
        "edges": digest_of(graph.edge_index for graph in graphs),
        "nodes": digest_of(graph.x != 0 for graph in graphs),  # standardised degrees are rounded anyhow
    }


def train(group: RunGroup, device: torch.device) -> None:
    """Train the runs of a group as one model, then evaluate and record each."""
    config, configs = group.config, [run.config for run in group.runs]
    dataset = load_dataset(config.dataset, config.data_root, config.download)
    seeds = [config.seed for config in configs]
    batches = make_batches(dataset, config.batch_size, seeds, device, config.layers)
    model = make_models(dataset.num_features, config.hidden, config.layers, seeds).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    objective = InfoGraphLoss(
        [config.beta for config in configs],
        [config.tau_plus for config in configs],
        variant=config.variant,
        stop_gradient=config.stop_gradient,
    )

    def batches_of(epoch: int) -> Iterator[tuple[GraphBatch, Tensor | None]]:
        """Each batch, with the prior's draws from uniform noise where they are needed."""
        if not config.prior_weight:
            yield from ((batch, None) for batch in batches)
            return
        generators = [epoch_generator(seed, epoch, device) for seed in seeds]
        for batch in batches:
            shape = batch.positions.shape[1], model.encoder.dim
            yield batch, torch.stack([torch.rand(shape, generator=one, device=device) for one in generators])

    def loss_of(pair: tuple[GraphBatch, Tensor | None]) -> tuple[Tensor, Tensor]:
        batch, uniform = pair
        local, global_, graphs = model(batch)
        loss = objective(local, global_, batch.graph, batch.node, batch.weight)
        if uniform is not None:
            loss = loss + config.prior_weight * model.prior(graphs, uniform)
        return loss, global_

    def score() -> dict[str, list[float]]:
        return evaluate(model.encoder, batches, dataset.labels, seeds)

    trained = fit(
        group,
        model,
        optimizer,
        batches_of,
        loss_of,
        lambda epoch: {} if epoch else score(),
        lambda: represent_batch(model.encoder, batches[0]),
        data=fingerprint(dataset),
        steps=len(batches),
        device=device,
        samples_per_epoch=len(dataset.graphs),
    )
    started = time.perf_counter()
    scores, sampled = score(), samples(model, batches, dataset.labels)
    eval_seconds = (time.perf_counter() - started) / len(seeds)
    for i, run in enumerate(group.runs):
        run.save_encoder(state_of_run(model.encoder, i))
        run.save_sample(sampled[i])
        run.finish(
            of_run(scores, i),
            replace(trained, untrained_metrics=of_run(trained.untrained_metrics, i)),
            eval_seconds=eval_seconds,
            device=device,
            trained_together=len(seeds),
        )


@command
def main(argv: Sequence[str] | None = None) -> None:
    launch_together("graph", train, expand(parse_config(GraphConfig, recipe, argv, "python -m graph.train")))


if __name__ == "__main__":
    main()
