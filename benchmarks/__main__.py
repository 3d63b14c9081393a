"""Measure speed and memory: ``python -m benchmarks``; under two minutes with ``--quick``."""

import sys
from collections.abc import Sequence

from benchmarks.page import write_page
from benchmarks.settings import PARTS, QUICK, SuiteConfig
from core.training.cli import command, parse


def parse_suite(argv: Sequence[str] | None) -> SuiteConfig:
    """Parse flags over the defaults of the full or the quick mode."""
    argv = sys.argv[1:] if argv is None else list(argv)
    default = SuiteConfig(**QUICK) if "--quick" in argv else SuiteConfig()
    return parse(SuiteConfig, argv, "python -m benchmarks", default=default)


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse_suite(argv)
    if not config.page:
        from benchmarks.suite import measure_parts

        measure_parts(config)
    print(f"written: {write_page(config.folder(), PARTS)}")


if __name__ == "__main__":
    main()
