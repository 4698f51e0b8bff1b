"""Command lines: jobs from signatures, settings, run folders, progress and exit codes."""
