"""The folder of the losses works when it is copied into another project, under another name."""

import shutil
import subprocess
import sys
from pathlib import Path

import core.losses

FOLDER = Path(core.losses.__file__).parent

SCRIPT = """
import sys
import torch
import sympy  # torch imports it late

before = {name.partition(".")[0] for name in sys.modules}
for name in ("core", "image", "graph", "sentence", "shared_eval"):
    sys.modules[name] = None  # importing it is an error
import my_losses

def check(loss):
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    assert loss.isfinite() and any(gradient is not None for gradient in gradients)

view1, view2 = (torch.randn(6, 8, requires_grad=True) for _ in range(2))
batch, mask = torch.tensor([0, 0, 1, 1, 2, 2]), ~torch.eye(6, dtype=torch.bool)
inputs = view1, view2
for name in my_losses.__all__:
    tested = getattr(my_losses, name)
    if name in ("HardNegativeLoss", "NTXentLoss", "DebiasedLoss"):
        check(tested()(view1, view2))
        check(tested(tile_size=4)(view1, view2))
        check(tested(reduction="sum")(view1, view2, batch))
    elif name == "InfoGraphLoss":
        for variant in ("corrected", "released"):
            check(tested(variant=variant)(view1, view2[:3], batch))
    elif name == "hard_negative_loss":
        scores = view1 @ view2.T
        check(tested(scores.diagonal(), scores, mask, beta=1.0, tau_plus=0.1, floor=-5.0).mean())
    elif name == "clip_loss":
        check(tested(view1, view2))
    elif name in ("GradientCached", "cached"):
        encoder = torch.nn.Linear(8, 4)
        encoder.forward = lambda x, forward=encoder.forward: (forward(x),)
        tested(encoder, 4)(view1.detach())[0].sum().backward()
        assert encoder.weight.grad.isfinite().all()
    else:
        raise AssertionError(f"{name} is not tested")
after = {name.partition(".")[0] for name, module in sys.modules.items() if module}
print(sorted(after - before - set(sys.stdlib_module_names)))
"""


def test_a_copy_works_in_another_project(tmp_path):
    """Forward and backward of everything it exports, and no module is imported that torch does not need."""
    shutil.copytree(FOLDER, tmp_path / "my_losses", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "use.py").write_text(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + SCRIPT)
    result = subprocess.run([sys.executable, "-I", "use.py"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "['my_losses']\n"
