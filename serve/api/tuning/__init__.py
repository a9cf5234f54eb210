"""Fine-tuning over HTTP: jobs, what they make, and what the model says while it learns."""
