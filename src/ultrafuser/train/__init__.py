"""Two-stage training on the Hugging Face Trainer: stages, class-balanced batches, atomic checkpoints, metrics per domain."""
