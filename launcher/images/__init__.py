"""Pinned images: what a name in ``images.lock.yaml`` stands for, and proof that it is what runs."""
