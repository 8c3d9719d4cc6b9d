"""Plans run as notebooks."""
