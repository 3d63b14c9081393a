"""InfoGraph with GIN on graph classification datasets."""

import warnings

# torch_geometric still scripts functions as it is imported, and torch warns its users of that.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
