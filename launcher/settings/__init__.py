"""Parts of the settings: numbers with their ranges, resources, a stage's own, and what is wrong."""
