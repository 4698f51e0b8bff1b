"""Chains trained on photographs, judged, and compared with classical ones."""
