"""Files: checkpoints, CSV, IDX, JSON, each written completely or not at all; and tables as text."""
