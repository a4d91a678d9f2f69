"""Bundles: what others need to have a build's systems, in one file."""
