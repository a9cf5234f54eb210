"""Fine-tuning jobs: a queue on disk, uploaded files, and the trainer's processes. Imports no torch."""
