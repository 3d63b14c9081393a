"""Steps of other people's libraries beside ours, on the same batches, where the libraries are installed."""

import copy
import tempfile
from collections.abc import Callable

import torch
import torch.nn.functional as F
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from torch_geometric.data import Batch, Data
from torch_geometric.nn import DeepGraphInfomax
from transformers import PrinterCallback

from benchmarks.graphs import HIDDEN, LAYERS
from benchmarks.measure import Findings
from benchmarks.references_images import measure_images
from benchmarks.references_senteval import measure_senteval
from benchmarks.released_graphs import ReleasedInfoGraph
from benchmarks.settings import ReferenceSettings
from core import InfoGraphLoss
from core.io.errors import InputError
from core.losses.sentence_transformers import HardNegativesRankingLoss
from core.training.config import default_data_root
from core.training.optimizers import make_optimizer
from core.training.runtime import threads_for
from core.training.seeding import seed_everything
from graph.batch import make_batches, step_elements
from graph.data import load_dataset
from graph.encoder import make_models
from sentence.corpora import find_corpus
from sentence.data import encode_corpus
from sentence.encoder import QuickThought
from sentence.tasks import load_task

TITLE = "Reference points"
ABOUT = (
    "The same data, batches and widths in our code and in the libraries that people use, in float32. Graphs: "
    "an epoch with PyG's layers on collated batches; InfoGraph with its objective over all pairs of a node "
    "and a graph, and DeepGraphInfomax, which scores each node against one summary of the batch, with a "
    "second encoding of shuffled features. Sentences: an epoch of SentenceTransformerTrainer with its "
    "MultipleNegativesRankingLoss, once it is made, and a plain loop with our loss and the same encoder, "
    "batches and optimizer. Images: a step of SimCLR with our loss and with lightly's, on the same views; "
    "then views and loop, lightly's from a DataLoader with torchvision's transforms, as its own are. "
    "SentEval: what encoding takes, what our fits take, and what those of its protocol take with "
    "scikit-learn, one by one."
)


def measure(settings: ReferenceSettings, device: torch.device, findings: Findings) -> None:
    """Measure graphs, sentences and images beside other libraries, then SentEval's protocol in two parts."""
    for name in settings.graphs:
        measure_graphs(name, settings, device, findings)
    measure_sentences(settings, device, findings)
    measure_images(settings, device, findings)
    measure_senteval(settings, device, findings)


def epoch_of(
    model: nn.Module, loss_of: Callable[[object], Tensor], batches: list[object]
) -> Callable[[], None]:
    """A function that takes one step on each batch."""
    optimizer = make_optimizer("adam", model.parameters(), 1e-3, 0.0)

    def epoch() -> None:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss_of(batch).backward()
            optimizer.step()

    return epoch


def infograph_loss(local: Tensor, global_: Tensor, batch: Tensor) -> Tensor:
    """InfoGraph's objective over all pairs: [V, D], [G, D], [V] -> scalar."""
    scores, own = local @ global_.T, F.one_hot(batch, len(global_)).bool()
    negatives = F.softplus(scores).masked_fill(own, 0.0).sum() / (~own).sum()
    return F.softplus(-scores[own]).mean() + negatives


def measure_graphs(name: str, settings: ReferenceSettings, device: torch.device, findings: Findings) -> None:
    """An epoch of InfoGraph and of DeepGraphInfomax on one dataset."""
    try:
        dataset = load_dataset(name, default_data_root())
    except InputError as error:
        findings.notes.append(f"Left out: {error}.")
        return
    batches = make_batches(dataset, settings.batch_size, [0], device)
    collated = [
        Batch.from_data_list([Data(**vars(dataset.graphs[i])) for i in batch.positions[0].tolist()]).to(
            device
        )
        for batch in batches
    ]
    ours = make_models(dataset.num_features, HIDDEN, LAYERS, seeds=[0]).to(device)
    objective = InfoGraphLoss(0.0, 0.0)
    plain = ReleasedInfoGraph(dataset.num_features).to(device)
    encoder = copy.deepcopy(plain.encoder)

    def our_loss(batch: object) -> Tensor:
        local, global_, _ = ours(batch)
        return objective(local, global_, batch.graph, batch.node, batch.weight).sum()

    def shuffled(batch: Batch) -> tuple[Batch]:
        corrupted = copy.copy(batch)
        corrupted.x = batch.x[torch.randperm(len(batch.x), device=batch.x.device)]
        return (corrupted,)

    infomax = DeepGraphInfomax(
        encoder.dim,
        _Nodes(encoder),
        summary=lambda nodes, *_: nodes.mean(dim=0).sigmoid(),
        corruption=shuffled,
    ).to(device)
    subjects = {
        "ours, InfoGraph": epoch_of(ours, our_loss, batches),
        "PyG, InfoGraph": epoch_of(plain, lambda b: infograph_loss(*plain(b), b.batch), collated),
        "PyG, DeepGraphInfomax": epoch_of(infomax, lambda b: infomax.loss(*infomax(b)), collated),
    }
    with threads_for(step_elements(batches, HIDDEN)):  # as our training does; fewer threads help all of them
        findings.compare(f"{name}, epoch", subjects, settings.rounds, "graphs", len(dataset.graphs))


class _Nodes(nn.Module):
    """The nodes' representations of an encoder that also returns those of graphs."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch) -> Tensor:
        return self.encoder(batch)[0]


def in_order(dataset: Dataset, batch_size: int, drop_last: bool, **_: object) -> DefaultBatchSampler:
    """The trainer's batches, in the order of the pairs, as the plain loop takes them."""
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def measure_sentences(settings: ReferenceSettings, device: torch.device, findings: Findings) -> None:
    """An epoch of a plain loop with our loss, and of SentenceTransformerTrainer on the same batches."""
    corpus = find_corpus("pydoc", default_data_root())
    tokenizer = encode_corpus(corpus, 50_000).tokenizer
    sentences = load_task("topic", default_data_root()).sentences
    anchors = [sentences[i % len(sentences)] for i in range(settings.pairs)]
    positives = [sentences[(i + 1) % len(sentences)] for i in range(settings.pairs)]
    seed_everything(0)
    models = []
    for _ in range(2):
        encoder = QuickThought(tokenizer, "gru", 64, settings.hidden, bidirectional=True, longest=30)
        models.append(SentenceTransformer(modules=[encoder], device=str(device)))
    ours, theirs = HardNegativesRankingLoss(models[0], beta=0.0), MultipleNegativesRankingLoss(models[1])
    data = Dataset.from_dict({"anchor": anchors, "positive": positives})
    optimizer = make_optimizer("adamw", models[0].parameters(), 1e-3, 0.0)

    def loop() -> None:
        models[0].train()
        for start in range(0, settings.pairs, settings.sentence_batch):
            chosen = slice(start, start + settings.sentence_batch)
            columns = [models[0].preprocess(column[chosen]) for column in (anchors, positives)]
            moved = [{k: v.to(device) for k, v in column.items()} for column in columns]
            optimizer.zero_grad(set_to_none=True)
            ours(moved, torch.empty(0)).backward()
            nn.utils.clip_grad_norm_(models[0].parameters(), 1.0)
            optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=settings.sentence_batch,
            learning_rate=1e-3,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
            batch_sampler=in_order,
        )
        trainer = SentenceTransformerTrainer(models[1], arguments, data, loss=theirs)
        trainer.remove_callback(PrinterCallback)
        subjects = {"ours, a plain loop": loop, "SentenceTransformerTrainer": trainer.train}
        findings.compare("sentence pairs, epoch", subjects, settings.rounds, "pairs", settings.pairs)
