"""Lets tests import the random searches beside them, which are scripts too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
