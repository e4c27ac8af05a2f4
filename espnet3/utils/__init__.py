"""What every stage shares: configs, logs, metadata, reuse of earlier output, errors."""
