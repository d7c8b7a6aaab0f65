"""One file for each verb of the command line, in a package for each section of the help."""
