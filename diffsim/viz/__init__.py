"""What is looked at: figures, animations, report pages."""
