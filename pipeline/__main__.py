"""Entry point of ``python -m ceflpipe.pipeline``, which is the same as ``ceflpipe``."""

from .cli import main

if __name__ == "__main__":
    main()
