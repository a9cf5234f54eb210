"""Train, serve and chat with LoRA adapters on one shared 4-bit base model."""

__version__ = "0.1.0"
