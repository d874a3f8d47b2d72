"""`python -m lmm.chat` is `lmm chat`."""

from lmm.cli.app import chat_main

chat_main()
