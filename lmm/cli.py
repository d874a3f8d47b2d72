"""The `lmm` command: one thin function per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from lmm.bench.cli import app as bench_app
from lmm.errors import LmmError

app = typer.Typer(
    name="lmm",
    help="Chat with a local language model that learns from what you tell it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(bench_app)

Option = typer.Option


def main() -> None:
    """Run the command line: library errors become one line on stderr and an exit code."""
    try:
        app()
    except LmmError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(error: LmmError) -> None:
    from lmm.sanitize import clean

    print(f"lmm: {clean(str(error))}", file=sys.stderr)
    sys.exit(error.exit_code)


@app.command()
def chat(
    backend: Annotated[str | None, Option(help="auto, torch or mlx_lm")] = None,
    model: Annotated[str | None, Option(help="a packaged name, a folder, a .gguf file or a Hugging Face id")] = None,
    memory: Annotated[str | None, Option(help="which memory; see `lmm memories`")] = None,
    mm_load_path: Annotated[str | None, Option(help="memory file to start from; skipped if it does not exist")] = None,
    mm_save_path: Annotated[
        str | None, Option(help="where to save; default artifacts/<memory>_<time>.safetensors")
    ] = None,
    mm_path: Annotated[str | None, Option(help="both of the above")] = None,
    deterministic: Annotated[
        bool | None, Option("--deterministic/--non-deterministic", help="greedy or sampling")
    ] = None,
    decoding_strategy: Annotated[str | None, Option(help="auto, greedy, beam or sample")] = None,
    local_files_only: Annotated[bool | None, Option("--local-files-only", help="never use the network")] = None,
    activation_log_path: Annotated[str | None, Option(help="where the activation log goes")] = None,
    log: Annotated[bool | None, Option("--log/--no-log", help="write the activation log")] = None,
    system: Annotated[str | None, Option(help="system prompt")] = None,
    max_tokens: Annotated[int | None, Option(help="longest reply, in tokens")] = None,
    temperature: Annotated[float | None, Option(help="for sampling")] = None,
    top_p: Annotated[float | None, Option(help="for sampling")] = None,
    min_p: Annotated[float | None, Option(help="for sampling")] = None,
    seed: Annotated[int | None, Option(help="for sampling and fresh memories")] = None,
    layer: Annotated[int | None, Option(help="layer of the memory; default: the middle one")] = None,
    layers_path: Annotated[str | None, Option(help="where an unknown model keeps its layers")] = None,
    revision: Annotated[str | None, Option(help="revision of a Hugging Face model")] = None,
    dtype: Annotated[str | None, Option(help="auto, float32, bfloat16 or float16")] = None,
    preset: Annotated[str | None, Option(help="a named set of the memory's options")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="an option of the memory, name=value")] = None,
) -> None:
    """Talk to a model that learns. Without a terminal: answer each line of stdin on stdout."""
    from lmm import config
    from lmm.chat import run

    given: dict[str, Any] = dict(locals())
    for name in ("config", "run", "settings", "mm_path"):
        given.pop(name, None)
    if mm_path is not None:
        given["mm_load_path"] = mm_load_path or mm_path
        given["mm_save_path"] = mm_save_path or mm_path
    if settings:
        given["options"] = config.parse_settings(settings)
    run(config.load(given))


@app.command()
def memories() -> None:
    """List the memories, one line each."""
    from lmm import registry

    names = registry.table("lmm.memories")
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {registry.memory_class(name).summary}")


@app.command()
def smoke(
    protocol: Annotated[str, Option(help="separate: a fresh memory for each name; shared: one for all")] = "separate",
    names: Annotated[str | None, Option(help="names to teach, separated by commas")] = None,
    facts: Annotated[str | None, Option(help='JSON lines {"statement", "question", "answer"} to teach instead')] = None,
    backend: Annotated[str | None, Option(help="auto, torch or mlx_lm")] = None,
    model: Annotated[str | None, Option(help="as in `lmm chat`")] = None,
    memory: Annotated[str | None, Option(help="which memory; see `lmm memories`")] = None,
    preset: Annotated[str | None, Option(help="a named set of the memory's options")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="an option of the memory, name=value")] = None,
    layer: Annotated[int | None, Option(help="layer of the memory; default: the middle one")] = None,
    dtype: Annotated[str | None, Option(help="auto, float32, bfloat16 or float16")] = None,
    seed: Annotated[int | None, Option(help="for fresh memories")] = None,
    local_files_only: Annotated[bool | None, Option("--local-files-only", help="never use the network")] = None,
    require: Annotated[float, Option(help="share of facts to be recalled for exit code 0")] = 0.8,
    allow_damage: Annotated[float, Option(help="share of unrelated answers that may differ for exit code 0")] = 0.2,
    as_json: Annotated[bool, Option("--json", help="print one JSON object")] = False,
) -> None:
    """Teach facts in one process, ask for them in another, and see what else changed."""
    from lmm import config
    from lmm import smoke as test

    given: dict[str, Any] = {"backend": backend, "model": model, "memory": memory, "preset": preset, "layer": layer}
    given |= {"dtype": dtype, "seed": seed, "local_files_only": local_files_only}
    given |= {"options": config.parse_settings(settings) if settings else None}
    what = test.facts_of(protocol, names.split(",") if names else test.NAMES, facts)
    raise typer.Exit(test.command(config.load(given), protocol, what, as_json, require, allow_damage))


def chat_main() -> None:
    """`python -m lmm.chat` is `lmm chat`."""
    sys.argv.insert(1, "chat")
    main()
