"""The settings of quick-thought training, and what a dataset's name brings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import Self

from core.io.errors import InputError, unknown_name
from core.training.config import Precision, TrainConfig, hardness_of, objective_option
from core.training.describe import describe_runs

KNOWN = ("pydoc", "books", "bookcorpus", "wikitext-103", "folder:PATH", "lines:PATH")
NO_TASKS = "none"
SENTEVAL_TASKS = ("mr", "cr", "subj", "mpqa", "trec", "msrp", "sst2", "stsb")
BUILT_IN_TASKS = ("topic", "neighbours")
UNUSED_SETTINGS = {  # by encoder
    "gru": (),
    "bow": ("hidden", "bidirectional"),
    "transformer": ("hidden", "bidirectional", "embedding_dim", "vocab_size"),
}
DEFAULT_TEMPERATURE = 0.1  # of cosines

Lines = Literal["auto", "sentences"]  # of a book
Denominator = Literal["negatives", "all"]
Protocol = Literal["senteval", "senteval-lbfgs", "quickthoughts"]  # of the evaluation


@dataclass(frozen=True, kw_only=True)
class SentenceConfig(TrainConfig):
    """Train quick-thought sentence embeddings, evaluate them on tasks, and record both."""

    modality: ClassVar[str] = "sentence"
    plain_objective: ClassVar[str] = "quickthought"
    minimums: ClassVar[Mapping[str, float]] = {
        **TrainConfig.minimums,
        **dict.fromkeys(("window", "embedding_dim", "hidden", "vocab_size", "longest"), 1),
        **dict.fromkeys(("max_steps", "cache_chunk"), 1),
    }
    # Each offset inside the window is a term of its own, made one after the other.
    maximums: ClassVar[Mapping[str, float]] = {**TrainConfig.maximums, "window": 2**20}

    dataset: str = "pydoc"
    """pydoc (built-in), books, bookcorpus, wikitext-103, folder:PATH (one book per .txt or .txt.gz),
    lines:PATH (a file with one sentence per line, or a folder of such files)."""
    objective: Literal["quickthought", "debiased", "hard"] = "hard"
    """quickthought: beta 0 and tau_plus 0; debiased: beta 0; hard: beta above 0."""
    temperature: float | None = None
    """Divides the cosines of --normalize (0.1 by default); inner products have none."""
    normalize: bool = objective_option(False, slug="normalized", label="normalized")
    """Score by cosines instead of inner products."""
    denominator: Denominator = objective_option("negatives", slug="{}", label="denominator {}")
    """all: the sentence itself (score 0) and its other positives are also negatives, as in quick-thoughts'
    code."""
    stop_gradient: bool = objective_option(
        False, slug="stopgradient", label="weights constant", affects_plain=False
    )
    """Treat the negatives' weights as constants."""
    window: int = objective_option(1, slug="window{}", label="window {}")
    """Sentences to each side that are positives."""
    epochs: int = 1
    max_steps: int | None = None
    """Steps of an epoch at most, on batches that the seed chooses; by default all of the text is read."""
    batch_size: int = 400
    cache_chunk: int | None = None
    """Sentences that a process encodes at a time at most (gradient caching)."""
    lr: float = 5e-4
    precision: Precision = "auto"
    encoder: Literal["gru", "bow", "transformer"] = "gru"
    """gru, bow (mean of word embeddings), or a transformer, fine-tuned from --model."""
    model: str | None = None
    """The transformer's checkpoint: a folder, or a name at the Hugging Face hub."""
    embedding_dim: int = 620
    """Size of a word embedding."""
    hidden: int = 600
    """Size of the GRU's state, in each direction."""
    bidirectional: bool = True
    """Whether the GRU reads in both directions."""
    vocab_size: int = 50_000
    """Words of the vocabulary at most, learned from the corpus."""
    longest: int = 30
    """Tokens of a sentence at most; the rest is cut."""
    clip_norm: float = 5.0
    """Maximum norm of a step's gradient."""
    strict: bool = False
    """Stop at the first fault of the corpus (bytes that are not UTF-8, books without neighbours)."""
    tasks: tuple[str, ...] = SENTEVAL_TASKS
    """Tasks to evaluate on. SentEval also has sst5, sickr, sicke, sts12 to sts16; all names every one. none
    scores without labels, on sentences that are held out; so does a run whose tasks have no data."""

    def checked(self) -> Self:
        if self.batch_size < 3:
            raise InputError(
                f"`batch_size` is {self.batch_size}; at least 3 sentences are needed for negatives"
            )
        if not self.clip_norm > 0:
            raise InputError(f"`clip_norm` is {self.clip_norm}; it must be above 0")
        if self.temperature is not None and not self.normalize:
            raise InputError(
                f"`temperature` is {self.temperature:g}, but scores are inner products, which have none; "
                "leave it out, or add `normalize`"
            )
        if self.temperature is not None and not self.temperature > 0:
            raise InputError(f"`temperature` is {self.temperature:g}; it must be above 0")
        if (self.encoder == "transformer") != (self.model is not None):
            raise InputError("`encoder` transformer and `model` belong together: the checkpoint to fine-tune")
        if NO_TASKS in self.tasks and len(self.tasks) > 1:
            raise InputError(f"`tasks` is {' '.join(self.tasks)}; {NO_TASKS} is used alone")
        if self.normalize and self.temperature is None:
            return replace(self, temperature=DEFAULT_TEMPERATURE).checked()
        return super().checked()

    def check_effects(self) -> None:
        default = defaults_for(self.dataset, self.objective, self.encoder)
        for name in UNUSED_SETTINGS[self.encoder]:
            if (value := getattr(self, name)) != getattr(default, name):
                raise InputError(
                    f"`{name}` is {value}, which `encoder` {self.encoder} does not use; leave it out"
                )

    def check_dataset(self) -> None:
        if self.dataset not in KNOWN and not self.dataset.startswith(("folder:", "lines:")):
            raise unknown_name("`dataset`", self.dataset, KNOWN)

    @classmethod
    def objective_fields(cls) -> list[str]:
        return ["encoder", *super().objective_fields()]

    def unusual_encoder(self) -> str | None:
        """The encoder, or its checkpoint, if it is not the one that the dataset's name brings."""
        if self.encoder == defaults_for(self.dataset).encoder:
            return None
        return Path(self.model).resolve().name if self.model else self.encoder  # . is a name too


def defaults_for(dataset: str = "pydoc", objective: str = "hard", encoder: str = "gru") -> SentenceConfig:
    """Quick-thoughts' settings, and small ones for the built-in corpus, made for two cores."""
    beta, tau_plus = hardness_of(objective)
    config = SentenceConfig(dataset=dataset, beta=beta, tau_plus=tau_plus)
    if encoder == "transformer":
        config = replace(config, batch_size=64, lr=2e-5, normalize=True)
    if dataset != "pydoc":
        return config
    config = replace(config, tasks=BUILT_IN_TASKS)
    if encoder == "transformer":
        return config
    # The corpus has too few sentences for a GRU.
    small: dict[str, Any] = {"encoder": "bow", "embedding_dim": 128, "hidden": 128, "epochs": 30}
    return replace(config, **small, batch_size=100, lr=5e-3, precision="float32")


if __name__ == "__main__":  # asked by shared_eval.reproduce
    describe_runs(SentenceConfig, defaults_for)
