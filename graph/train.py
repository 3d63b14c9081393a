"""Train InfoGraph on a graph dataset: ``python -m graph.train --dataset MUTAG --objective hard --beta 1``."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from core import InfoGraphLoss
from core.config import TrainConfig, hardness_of, parse_config
from core.environment import seed_everything
from core.errors import InputError, command
from core.infograph import Variant
from core.run import Run, settle
from core.training import fit
from graph.data import load_dataset, make_batches
from graph.encoder import GIN, InfoGraph
from graph.evaluate import evaluate, sample


@dataclass(frozen=True, kw_only=True)
class GraphConfig(TrainConfig):
    """Train InfoGraph with a GIN encoder, evaluate it by a cross-validated SVM, and record both."""

    plain_objective: ClassVar[str] = "infograph"

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


def train(config: GraphConfig) -> Run:
    """Train, evaluate and record the run that ``config`` describes, or find it done."""
    config, device = settle(config)
    run = Run.open("graph", config)
    if run.is_finished():
        return run
    dataset = load_dataset(config.dataset, config.data_root, config.download)
    batches = make_batches(dataset, config.batch_size, config.seed, device)

    seed_everything(config.seed)
    model = InfoGraph(GIN(dataset.num_features, config.hidden, config.layers)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    objective = InfoGraphLoss(config.beta, config.tau_plus, config.variant, config.stop_gradient)

    def loss_of(batch):
        local, global_, graphs = model(batch)
        loss = objective(local, global_, batch.graph)
        return loss + config.prior_weight * model.prior(graphs) if config.prior_weight else loss

    def score():
        return evaluate(model.encoder, batches, dataset.labels, config.seed)

    trained = fit(
        run,
        model,
        optimizer,
        lambda epoch: batches,
        loss_of,
        lambda epoch: {} if epoch else score(),
        steps=len(batches),
        device=device,
        samples_per_epoch=len(dataset.graphs),
    )
    started = time.perf_counter()
    metrics = score()
    run.save_encoder(model.encoder)
    run.save_sample(sample(model, batches, dataset.labels))
    run.finish(metrics, trained, eval_seconds=time.perf_counter() - started, device=device)
    return run


@command
def main(argv: Sequence[str] | None = None) -> None:
    train(parse_config(GraphConfig, recipe, argv, "python -m graph.train")).report()


if __name__ == "__main__":
    main()
