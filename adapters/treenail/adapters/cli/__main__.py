"""``python -m treenail.adapters.cli``: the command, without its installed script."""

import sys

from treenail.adapters.cli.main import main

sys.exit(main())
