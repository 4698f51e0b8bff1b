"""Stages of a chain that have parameters: white balance, colour matrix, tone curve, filters."""
