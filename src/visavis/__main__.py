"""`python -m visavis`, which is also what torchrun starts."""

import sys

from visavis.cli import main

sys.exit(main())
