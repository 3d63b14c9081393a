"""Fine-tune a SentenceTransformer on STS-B's similar pairs, by the library's trainer and our loss.

    python -m benchmarks.finetuning MODEL

Each run is saved, loaded again, and scored on STS-B's test pairs. The table is written for README.md.
"""

import json
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from core.io.files import write_atomically
from core.training.cli import command, parse
from core.training.config import default_data_root
from shared_eval.statistics import paired_difference
from shared_eval.table_formats import markdown

UNTRAINED = "untrained"
PLAIN = "beta 0 (MultipleNegativesRankingLoss)"
OBJECTIVES: dict[str, dict[str, float]] = {
    PLAIN: {"beta": 0.0},
    "debiased, tau_plus 0.1": {"beta": 0.0, "tau_plus": 0.1},
    "hard, beta 0.5": {"beta": 0.5},
}


@dataclass(frozen=True, kw_only=True)
class FinetuningSettings:
    """Fine-tune a SentenceTransformer with several objectives and seeds."""

    model: Annotated[str, tyro.conf.Positional]
    """A folder, or a name at the Hugging Face hub."""
    output: Path = Path("benchmarks/results/finetuning")
    """Folder of runs.json and table.md."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int = 1
    batch_size: int = 64
    lr: float = 2e-5
    max_pairs: int | None = None
    """The first ones of the file at most; by default all."""
    min_score: float = 4.0
    """Pairs that people gave at least this similarity, of 0 to 5, are positives."""
    data_root: Path = field(default_factory=default_data_root)


@command
def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(FinetuningSettings, argv, "python -m benchmarks.finetuning")
    import torch  # help and errors do not need it

    from core.training.provenance import describe_environment

    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    environment = describe_environment(torch.device("cpu"))
    runs = [{"objective": UNTRAINED, "stsb": score_of(settings.model, settings.data_root)}]
    settings.output.mkdir(parents=True, exist_ok=True)
    for seed in settings.seeds:
        for objective in OBJECTIVES:
            runs.append(trained(settings, objective, seed))
            print(runs[-1], flush=True)
            content = {"settings": asdict(settings), "environment": environment, "runs": runs}
            write_atomically(settings.output / "runs.json", json.dumps(content, indent=2, default=str) + "\n")
    write_atomically(settings.output / "table.md", table_of(runs))


def trained(settings: FinetuningSettings, objective: str, seed: int) -> dict[str, Any]:
    """Train one run, save it, load it, and score it."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import BatchSamplers

    from core.losses.sentence_transformers import HardNegativesRankingLoss
    from sentence.loading import load_encoder

    pairs = positives_in(settings.data_root, settings.min_score)[: settings.max_pairs]
    model = load_encoder(settings.model, "cpu", download=True)
    with TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.lr,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            seed=seed,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"anchor": [a for a, _ in pairs], "positive": [b for _, b in pairs]}
            ),
            loss=HardNegativesRankingLoss(model, **OBJECTIVES[objective]),
        )
        started = time.process_time()
        loss = trainer.train().training_loss
        seconds = time.process_time() - started
        model.save_pretrained(folder)
        score = score_of(folder, settings.data_root)
    return {
        "objective": objective,
        "seed": seed,
        "pairs": len(pairs),
        "loss": loss,
        "cpu_seconds": round(seconds, 1),
        "stsb": score,
    }


def positives_in(data_root: Path, min_score: float) -> list[tuple[str, str]]:
    """STS-B's training pairs with at least that similarity."""
    from sentence.senteval import columns_of, number_in, read_lines
    from sentence.tasks import SENTEVAL_FOLDER

    pairs = []
    for where, line in read_lines(data_root / SENTEVAL_FOLDER / "STS/STSBenchmark/sts-train.csv", "utf-8"):
        *_, score, first, second = columns_of(line, 7, where)[:7]
        if number_in(score, where) >= min_score:
            pairs.append((first, second))
    return pairs


def score_of(model: str, data_root: Path) -> float:
    """Spearman's correlation of the cosines of STS-B's test pairs with people's similarity, times 100."""
    from sentence.loading import load_encoder
    from sentence.scoring import encoder_of, evaluate
    from sentence.tasks import load_task

    encode = encoder_of(load_encoder(model, "cpu", download=True))
    return 100 * evaluate(encode, {"stsb": load_task("stsb", data_root)})["stsb_spearman"]


def table_of(runs: Sequence[dict[str, Any]]) -> str:
    """Mean ± standard deviation (seeds) of each objective, and its difference to plain at the same seeds."""
    scores = {
        name: [run["stsb"] for run in runs if run["objective"] == name] for name in (UNTRAINED, *OBJECTIVES)
    }
    lines = []
    for objective, values in scores.items():
        spread = f" ± {statistics.stdev(values):.2f} ({len(values)})" if len(values) > 1 else ""
        gain = ""
        if objective not in (UNTRAINED, PLAIN) and len(values) > 1:
            difference = paired_difference(values, scores[PLAIN])
            gain = f"{difference.mean:+.2f} [{difference.low:.2f}, {difference.high:.2f}]"
        lines.append([objective, f"{statistics.mean(values):.2f}{spread}", gain])
    return markdown(("objective", "STS-B", "difference to beta 0"), lines)


if __name__ == "__main__":
    main()
