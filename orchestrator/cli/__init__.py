"""The command line `supsup`. Each verb, such as `sweep` or `status`, has one file."""
