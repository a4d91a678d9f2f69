"""Render results, runs, plans and events for people and as JSON."""
