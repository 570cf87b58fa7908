"""Start the simulator out of its directory: ``python contrib/dstack-simulator --socket PATH``."""

import sys

try:
    from dstack_simulator.main import main
except ModuleNotFoundError as exc:
    if exc.name is None or exc.name.partition(".")[0] != "cryptography":
        raise
    sys.exit("dstack-simulator needs the package cryptography, which skilld's extra tee brings: pip install '.[tee]'")

sys.exit(main())
