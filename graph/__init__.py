"""InfoGraph with GIN on graph classification datasets."""

import warnings

# Importing torch_geometric calls torch.jit.script, of whose deprecation torch would warn the user.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
