"""The settings of InfoGraph training, and what an objective's name brings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import Self

from core.io.errors import InputError
from core.training.config import GroupConfig, hardness_of, objective_option
from core.training.describe import describe_runs
from graph.names import NodeFeatures, check_name


@dataclass(frozen=True, kw_only=True)
class GraphConfig(GroupConfig):
    """Train InfoGraph with a GIN encoder, evaluate it by a cross-validated SVM, and record both."""

    modality: ClassVar[str] = "graph"
    plain_objective: ClassVar[str] = "infograph"
    minimums: ClassVar[Mapping[str, float]] = {
        **GroupConfig.minimums,
        "hidden": 1,
        "layers": 1,
        "prior_weight": 0,
    }
    maximums: ClassVar[Mapping[str, float]] = {**GroupConfig.maximums, "layers": 1000}

    dataset: str = "motifs"
    """motifs (built-in), a TUDataset of the paper (MUTAG, PTC_MR, ENZYMES, PROTEINS, DD, REDDIT-BINARY,
    IMDB-BINARY, IMDB-MULTI), another TUDataset's name, or folder:PATH with the files of one."""
    objective: Literal["infograph", "debiased", "hard"] = "hard"
    """infograph: beta 0 and tau_plus 0; debiased: beta 0; hard: beta above 0."""
    variant: Literal["corrected", "released"] = objective_option(
        "corrected", slug="{}", label="{}", affects_plain=False
    )
    """corrected: as the derivation has it; released: as the authors' code has it."""
    stop_gradient: bool = objective_option(
        False, slug="stopgradient", label="weights constant", affects_plain=False
    )
    """Treat the negatives' weights as constants."""
    temperature: float | None = None
    """Not supported: the Jensen-Shannon bound has no temperature."""
    epochs: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    hidden: int = 32
    """Width of a GIN layer."""
    layers: int = 3
    """GIN layers."""
    node_features: NodeFeatures = "auto"
    """What the encoder knows of a node: its labels (one-hot), its attributes (as they are), both, or its
    degree. auto: labels if the dataset has them, else degrees."""
    prior_weight: float = 0.0
    """Weight of InfoGraph's optional prior-matching loss; 0 leaves it out."""

    def checked(self) -> Self:
        if self.temperature is not None:
            raise InputError(
                f"`temperature` is {self.temperature:g}, but the graph objective, a Jensen-Shannon bound, "
                "has none; leave it out"
            )
        if self.batch_size < 2:
            raise InputError(f"`batch_size` is {self.batch_size}; at least 2 graphs are needed for negatives")
        return super().checked()

    def unusual_encoder(self) -> str | None:
        return None if self.node_features == "auto" else f"features-{self.node_features}"

    def check_dataset(self) -> None:
        check_name("`dataset`", self.dataset, self.data_root)


def defaults_for(objective: str = "hard", variant: str = "corrected") -> GraphConfig:
    """The settings of joshr17/HCL, which are the same for all graph datasets.

    The released variant's tau_plus is 0.5, the value that its code never changes.
    """
    beta, tau_plus = hardness_of(objective)
    if variant == "released" and tau_plus > 0:
        tau_plus = 0.5
    return GraphConfig(beta=beta, tau_plus=tau_plus)


if __name__ == "__main__":  # asked by shared_eval.reproduce
    describe_runs(GraphConfig, defaults_for)
