"""The shared base model: where it comes from, quantised once, mapped read-only by every process that needs it."""
