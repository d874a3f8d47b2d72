"""Files that survive: memory files, transcripts, the activation log, and what a forgotten lesson leaves behind"""
