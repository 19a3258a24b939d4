"""Depth models, one file each."""
