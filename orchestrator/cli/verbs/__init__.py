"""The verbs of the command line. Each section of `supsup --help` is a package, and each verb is a file."""
