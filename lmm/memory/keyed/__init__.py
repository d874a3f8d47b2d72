"""`keyed`: one isolated edit per lesson, and the gate that says whether a question is the lesson's"""
