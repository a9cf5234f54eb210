"""What requests may say: every field bounded, honoured or refused by name. Unknown fields of OpenAI's are ignored."""
