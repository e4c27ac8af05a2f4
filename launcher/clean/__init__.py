"""What launches have left behind, found and removed: ``python -m launcher clean``."""
