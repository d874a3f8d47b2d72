"""Models: names to folders, GGUF import, tokenizer and chat format"""
