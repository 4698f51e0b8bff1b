"""Files read and written: CSV, IDX, checkpoints, JSON, each whole or not at all."""
