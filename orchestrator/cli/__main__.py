"""Makes `python -m orchestrator.cli` run the command `supsup`."""

from orchestrator.cli.main import main

main()
