"""Solvers beside each other on a folder of images: `invdiff bench`."""
