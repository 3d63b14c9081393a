"""SimCLR on images."""

import shared_eval  # noqa: F401 -- it checks that `core` is the project's
