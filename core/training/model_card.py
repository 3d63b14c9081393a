"""The model card of a finished run: a README for whoever finds its folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from core.io.files import readable
from core.training.config import TrainConfig

# The entry of CITATION.cff, which a test compares.
CITATION = """@inproceedings{robinson2021contrastive,
  title = {Contrastive Learning with Hard Negative Samples},
  author = {Joshua David Robinson and Ching-Yao Chuang and Suvrit Sra and Stefanie Jegelka},
  booktitle = {International Conference on Learning Representations},
  year = {2021},
  url = {https://arxiv.org/abs/2010.04592}
}"""

CARD = """# {label}, trained on {dataset}

{model} Seed {seed}, {epochs} epochs.

## Data

`{dataset}`: {counts}.

## Scores

| | untrained | trained |
| --- | ---: | ---: |
{scores}

The untrained encoder is the same network before its first step.

## Load it

In a checkout of the project that trained it:

```python
{usage}
```

## Settings

```json
{settings}
```

`result.json` has the scores in full, versions, device and checksums.

## Citation

```bibtex
{citation}
```
"""


@dataclass(frozen=True)
class CardLines:
    """What a modality says in its cards."""

    model: str
    """A sentence: the encoder, and what it is trained by."""
    usage: str
    """Python that loads the encoder and uses it, at most five lines; ``RUN`` is replaced by the folder."""


def model_card(
    config: TrainConfig,
    lines: CardLines,
    data: Mapping[str, int | str],
    metrics: Mapping[str, float],
    untrained: Mapping[str, float],
) -> str:
    """The text of a run's ``README.md``; of ``data``, a task's fingerprint, it names the counts."""
    counts = [f"{name.replace('_', ' ')} {value:,}" for name, value in data.items() if isinstance(value, int)]
    rows = [
        f"| {name} | {f'{untrained[name]:.4f}' if name in untrained else ''} | {value:.4f} |"
        for name, value in metrics.items()
    ]
    card = CARD.format(
        label=config.objective_label(),
        dataset=config.dataset,
        model=lines.model,
        seed=config.seed,
        epochs=config.epochs,
        counts=", ".join(counts),
        scores="\n".join(rows),
        usage=lines.usage.replace("RUN", readable(repr(str(config.folder())))),
        settings=json.dumps(config.identity(), indent=2),
        citation=CITATION,
    )
    return readable(card)
