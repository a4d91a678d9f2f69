"""Views: what the commands print."""
