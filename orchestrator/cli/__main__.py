"""`python -m orchestrator.cli`: the same as the command `supsup`."""

from orchestrator.cli.main import main

main()
