"""Check the installed wheel in an environment without the checkout: ``make test-wheel`` runs this.

It has the losses, needs PyTorch alone, trains, and installs no package but ``hard_negatives``.
"""

import importlib.metadata
import importlib.util

import hard_negatives
import torch
from hard_negatives import HardNegativeLoss

installed = importlib.metadata.packages_distributions()
ours = [name for name, distributions in installed.items() if "hard-negatives" in distributions]
assert ours == ["hard_negatives"], ours
assert importlib.util.find_spec("core") is None
assert hard_negatives.__version__ == importlib.metadata.version("hard-negatives")
needed = [line for line in importlib.metadata.requires("hard-negatives") or [] if "extra ==" not in line]
assert needed == [f"torch>={torch.__version__.rpartition('.')[0]}"], "the lowest PyTorch is tested"

torch.manual_seed(0)
images = torch.randn(64, 32)
encoder = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
objective = HardNegativeLoss(beta=1.0, tau_plus=0.1, temperature=0.5)
optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
losses = []
for _ in range(50):
    view1, view2 = (encoder(images + 0.1 * torch.randn_like(images)) for _ in range(2))
    loss = objective(view1, view2)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0] - 0.1, losses
print(f"hard_negatives {hard_negatives.__version__} with torch {torch.__version__}: {ours}")
