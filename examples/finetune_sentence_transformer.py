"""Fine-tune a SentenceTransformer with hard negatives, by the library's own trainer.

    pip install -e '.[sentence-transformers]'
    python examples/finetune_sentence_transformer.py MODEL pairs.tsv --output tuned

``MODEL`` is a folder or a name at the Hugging Face hub. Each line of ``pairs.tsv`` has two texts that belong
together, separated by a tab, and may have more: texts that do not belong to the first, as hard negatives.
Prints how often a held-out first text finds its partner, before and after.
"""

import argparse
import csv
import sys
from pathlib import Path

import torch
from datasets import Dataset
from hard_negatives.sentence_transformers import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.training_args import BatchSamplers


def loss_of(model: SentenceTransformer, beta: float) -> torch.nn.Module:
    """The loss, in mini-batches where the model can be trained in them: an embedding of words cannot."""
    if type(model[0]).__name__ == "StaticEmbedding":
        return HardNegativesRankingLoss(model, beta=beta)
    return CachedHardNegativesRankingLoss(model, beta=beta, mini_batch_size=32)


def accuracy(model: SentenceTransformer, pairs: list[list[str]]) -> float:
    """Share of first texts whose partner is the nearest among all second texts."""
    first, second = (model.encode([pair[i] for pair in pairs], convert_to_tensor=True) for i in range(2))
    nearest = model.similarity(first, second).argmax(dim=1).cpu()
    return (nearest == torch.arange(len(pairs))).float().mean().item()


def main(model: str, pairs: Path, output: Path, beta: float, epochs: int, batch_size: int) -> None:
    with open(pairs, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if any(row)]
    if len(rows) < 10:
        sys.exit(f"{pairs} has {len(rows)} lines; at least 10 are needed, of which a tenth is held out")
    if differing := {len(row) for row in rows} - {len(rows[0])}:
        sys.exit(f"{pairs} has rows of {len(rows[0])} and of {differing.pop()} columns")
    held_out, rows = rows[: len(rows) // 10], rows[len(rows) // 10 :]
    columns = {f"text{i}": [row[i] for row in rows] for i in range(len(rows[0]))}

    encoder = SentenceTransformer(model)
    print(f"before training {accuracy(encoder, held_out):.3f}")
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(output / "checkpoints"),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=2e-5,
            save_strategy="no",
            report_to="none",
            seed=0,
            # A text that is twice in a batch would be its own negative, and the hardest of all.
            batch_sampler=BatchSamplers.NO_DUPLICATES,
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=loss_of(encoder, beta),
    )
    trainer.train()
    encoder.save_pretrained(str(output))
    print(f"after training {accuracy(SentenceTransformer(str(output)), held_out):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder or a name at the Hugging Face hub")
    parser.add_argument("pairs", type=Path, help="a file with two or more texts a line, separated by tabs")
    parser.add_argument("--output", type=Path, default=Path("tuned"))
    parser.add_argument("--beta", type=float, default=0.5, help="hardness; 0 is the library's own loss")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    main(**vars(parser.parse_args()))
