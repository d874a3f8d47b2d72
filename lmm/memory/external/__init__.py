"""Long-term memory of hidden states: every past token's state, searched while a reply is made."""
