"""What surrounds a training run: its folder, checkpoints, progress, teachers to train first, and its result."""
