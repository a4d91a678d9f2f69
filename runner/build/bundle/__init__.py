"""Bundles: a build's systems with all they need, exported as one file or folder."""
