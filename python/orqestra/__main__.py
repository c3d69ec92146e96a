"""`python -m orqestra` is `orqestra`."""

from orqestra.cli import main

if __name__ == "__main__":
    main()
