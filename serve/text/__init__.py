"""The text side: chat template, tokenizer, detokenizer, stop strings. Used by serving and by training."""
