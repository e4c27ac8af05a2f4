"""From cuts on disk to batches of features and token ids."""
