"""Camera raws and picture files."""
