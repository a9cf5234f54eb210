"""Files with examples, as people have them: opened, decoded, and read a record at a time."""
