"""Commands of the command line: one module each, with its options, help and output. The work is done in stages/."""
