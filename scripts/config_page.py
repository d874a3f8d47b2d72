"""Write docs/config.md from the declarations of the settings: python -m scripts.config_page"""

from __future__ import annotations

from lmm.cli.config_file import sample
from lmm.config import VARIABLES
from scripts.list_files import ROOT

PAGE = ROOT / "docs" / "config.md"
TEXT = """# Settings

Written by `python -m scripts.config_page` from the declarations in `lmm/config.py`.

A setting comes from a flag (`--max-tokens 64`), else from a variable (`LMM_MAX_TOKENS=64`), else from the config file
(`max_tokens = 64`), else it is the default. In a chat, `/set max_tokens 64` changes those that can change there.
Unknown names and values out of range are refused, and all that is wrong is named at once. One is a flag alone:
`--trust-remote-code` lets Python code run that comes with a model, and names it.

The config file is TOML. It is `config.toml` in `~/.config/lmm`, on macOS in `~/Library/Application Support/lmm`; there
need not be one.

| command | |
|---|---|
| `lmm config path` | where it is |
| `lmm config show` | every setting, its value, and where that comes from |
| `lmm config set KEY VALUE` | write one key; other lines and comments stay |
| `lmm config sample` | the file below |

## The file with every key

```toml
{sample}```

## Other variables

| variable | |
|---|---|
{variables}
"""


def page() -> str:
    """The page as it should be."""
    variables = "\n".join(f"| `{name}` | {why} |" for name, why in VARIABLES.items())
    return TEXT.format(sample=sample(), variables=variables)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written")
