"""`python -m ceflpipe.pipeline` is the same as `ceflpipe`."""

from .cli import main

if __name__ == "__main__":
    main()
