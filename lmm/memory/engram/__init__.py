"""`engram` and `engram_hybrid`: rows addressed by hashed n-grams, opened by a context gate"""
