"""One file a command: its options, its help, and how its result is said. The work is done in stages/."""
