"""What runs on the node: the job of a stage, its first process, what it measures and records."""
