"""``python -m skilld`` is ``skilld``."""

from skilld.cli import main

if __name__ == "__main__":
    main()
