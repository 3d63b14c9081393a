"""InfoGraph as a task for the training loop, for one run or for several that are trained together.

Shapes: R runs · G graphs of a batch · D dim.
"""

import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from core import InfoGraphLoss
from core.io.digests import digest_of
from core.training.model_card import CardLines
from core.training.optimizers import make_optimizer
from core.training.run_folder import Run
from core.training.seeding import epoch_generator
from core.training.task import GroupTask, Scores
from graph.batch import GraphBatch, make_batches, step_elements
from graph.config import GraphConfig
from graph.data import GraphDataset, load_dataset
from graph.encoder import make_models, state_of_run
from graph.scoring import check_classes, evaluate, evaluate_without_labels, represent_batch, samples
from shared_eval.metrics import SHOWN

# A batch, and the prior's draws [R, G, D] if the prior has a weight.
Batch = tuple[GraphBatch, Tensor | None]


class GraphTask(GroupTask):
    """Train a GIN encoder and InfoGraph's heads, with the weights of all runs in one model.

    The configs differ in seed and objective alone. ``dataset`` is by default the one that they name.
    """

    card_lines = CardLines(
        "A GIN encoder for graphs, trained without labels by InfoGraph: a graph and its nodes are pairs.",
        "import torch\nimport graph\n\nencoder = graph.load_encoder(RUN)\n"
        "x, edge_index = torch.ones(2, encoder.num_features), torch.tensor([[0, 1], [1, 0]])\n"
        "vectors = encoder(x, edge_index)  # [graphs, encoder.dim]",
    )

    def __init__(
        self, configs: Sequence[GraphConfig], device: torch.device, dataset: GraphDataset | None = None
    ) -> None:
        config = configs[0]
        self.device, self.prior_weight = device, config.prior_weight
        self.seeds = [single.seed for single in configs]
        self.dataset = dataset or load_dataset(
            config.dataset, config.data_root, config.download, config.node_features
        )
        self.graph_batches = make_batches(self.dataset, config.batch_size, self.seeds, device, config.layers)
        self.fingerprint = fingerprint(self.dataset)
        self.steps_per_epoch = len(self.graph_batches)
        self.samples_per_epoch = len(self.dataset.graphs)
        self.step_elements = step_elements(self.graph_batches, config.hidden)
        self.record_fields = {
            "trained_together": len(configs),
            "node_features": self.dataset.coding.as_dict(),
        }
        if self.dataset.labels is not None:
            check_classes(self.dataset.labels, self.dataset.name, "remove its _graph_labels.txt")
        else:
            if dataset is None:  # files: perhaps one is missing
                print(f"{self.dataset.name} has no labels: scores are those that need none", file=sys.stderr)
            self.record_fields |= {"labels": "none"}
        model = make_models(self.dataset.num_features, config.hidden, config.layers, self.seeds)
        self.model = model.to(device)
        self.shown_before = represent_batch(self.model.encoder, self.graph_batches[0])[:, :SHOWN]
        self.optimizer = make_optimizer("adam", self.model.parameters(), config.lr, weight_decay=0.0)
        hardness = torch.tensor([(single.beta, single.tau_plus) for single in configs]).T  # (2, R)
        self.objective = InfoGraphLoss(*hardness, variant=config.variant, stop_gradient=config.stop_gradient)
        # Checked on the host, moved once: a list would be copied to the device in every step.
        self.objective.beta, self.objective.tau_plus = hardness.to(device)

    def batches(self, epoch: int) -> Iterator[Batch]:
        if not self.prior_weight:
            yield from ((batch, None) for batch in self.graph_batches)
            return
        generators = [epoch_generator(seed, epoch, self.device) for seed in self.seeds]
        for batch in self.graph_batches:
            shape = batch.positions.shape[1], self.model.encoder.dim
            draws = [torch.rand(shape, generator=generator, device=self.device) for generator in generators]
            yield batch, torch.stack(draws)

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        graph_batch, uniform = batch
        local, global_, graphs = self.model(graph_batch)
        losses = self.objective(local, global_, graph_batch.graph, graph_batch.node, graph_batch.weight)
        if uniform is not None:
            losses = losses + self.prior_weight * self.model.prior(graphs, uniform)
        return losses, global_

    def evaluate(self) -> list[Scores]:
        if self.dataset.labels is None:
            return evaluate_without_labels(self.model, self.graph_batches)
        return evaluate(self.model.encoder, self.graph_batches, self.dataset.labels, self.seeds)

    def probe_embeddings(self) -> Tensor:
        return represent_batch(self.model.encoder, self.graph_batches[0])

    def save(self, runs: Sequence[Run]) -> None:
        sampled = samples(self.model, self.graph_batches, self.dataset.labels)
        for i, (run, sample) in enumerate(zip(runs, sampled, strict=True)):
            run.save_encoder(state_of_run(self.model.encoder, i))
            run.save_heads(state_of_run(self.model.heads, i))
            run.save_sample(sample | self._shown(i))

    def _shown(self, run: int) -> dict[str, Tensor]:
        """A few graphs, as their edges [2, E] between nodes [V] that each name their graph, for a page."""
        positions = self.graph_batches[0].positions[run, :SHOWN].tolist()
        graphs = [self.dataset.graphs[i] for i in positions]
        sizes = torch.tensor([graph.num_nodes for graph in graphs])
        starts = (sizes.cumsum(0) - sizes).tolist()
        edges = [graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)]
        after = represent_batch(self.model.encoder, self.graph_batches[0])[run, :SHOWN]
        return {
            "shown_edges": torch.cat(edges, dim=1).int(),
            "shown_nodes": torch.arange(len(graphs)).repeat_interleave(sizes).int(),
            "shown_before": self.shown_before[run],
            "shown_after": after,
        }


def fingerprint(dataset: GraphDataset) -> dict[str, int | str]:
    """What distinguishes the data from others: counts, and digests of what batches hold."""
    graphs = dataset.graphs
    return {
        "graphs": len(graphs),
        "features": dataset.num_features,
        "labels": "none" if dataset.labels is None else digest_of([torch.from_numpy(dataset.labels)]),
        "edges": digest_of(graph.edge_index for graph in graphs),
        # Attributes as they are; of the others where they are not 0, as standardised degrees are rounded.
        "nodes": digest_of(graph.x if dataset.coding.attributes else graph.x != 0 for graph in graphs),
    }
