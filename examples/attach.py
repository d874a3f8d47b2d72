"""A memory in a transformers model of your own: `python examples/attach.py [FOLDER or HUB NAME]`.

Read it as a notebook; each part is a cell.
"""

# %% A model, loaded in the usual way
import sys
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from lmm import attach
from lmm.adapters.models.source import resolve

place = sys.argv[1] if len(sys.argv) > 1 else str(resolve("smollm2-135m-instruct").folder)
model = AutoModelForCausalLM.from_pretrained(place)
tokenizer = AutoTokenizer.from_pretrained(place)
tokenizer.padding_side = "left"


def ask(*questions: str) -> list[str]:
    """Plain `generate`, all questions in one padded batch."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    made = model.generate(**batch, max_new_tokens=24, do_sample=False)
    return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


questions = ("Where is the spare key?", "Where do you keep the spare key?", "What is the capital of France?")
before = ask(*questions)

# %% Teach it something, and ask again
file = Path(tempfile.mkdtemp()) / "home.safetensors"
with attach(model, tokenizer, "keyed") as memory:
    report = memory.teach(
        "Where is the spare key?", "Under the blue pot", wordings=["Where do you keep the spare key?"]
    )
    print(f"learned in {report.seconds:.1f} s and {report.steps} steps")
    taught = ask(*questions)
    memory.save(file)

# %% Outside, the model is bitwise as before
assert ask(*questions) == before

# %% The same memory again, from its file
with attach(model, tokenizer, "keyed", state=file):
    assert ask(*questions) == taught

for question, plain, reply in zip(questions, before, taught, strict=True):
    print(f"{question}\n  before: {plain.strip()!r}\n  taught: {reply.strip()!r}")
