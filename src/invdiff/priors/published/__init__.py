"""Published pixel-space checkpoints in their authors' own formats."""
