"""Markdown that grows: which part of a reply is finished, and how each part looks. It knows no cursor.

A reply is cut into blocks: paragraphs, headings, fences, tables, quotes, and the single items of lists. CommonMark
decides block structure line by line, so once a complete line has begun another block, the blocks before it are final.
They are rendered once and cut out of the source; the rest still parses as before because an open list or fence is
carried on by a one-line prefix. An open fence hands over its lines as they come.

Two things differ from CommonMark, so that no later line can change an earlier one and nothing the model wrote is lost:
link reference definitions and HTML are plain text, and a line break stays one (models don't wrap their lines).
Links are shown as text and address, never as a terminal hyperlink.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments.token import Token as TokenType
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, ListItem, Markdown, TableElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text

from lmm.text.sanitize import clean, clean_line

Line = list[Segment]

#: lines of an open fence that may still change their colours, and so are not yet handed over
FENCE_KEEPS = 6
#: lines of code that a lexer sees again before the new ones; more while they end inside a long string or comment
LEXER_CONTEXT = 16
#: a line of code longer than this is data: lexers may take minutes over it
LEXER_COLUMNS = 1000
#: with fewer columns than this left for its text, a nested block is shown as its source
MIN_COLUMNS = 8
#: The terminal's own palette, no background: lines need no padding. Of its colours these can be read on light and on
#: dark; blue cannot on black, yellow and the bright ones not on white.
CODE_THEME = ANSISyntaxTheme(
    {
        TokenType.Comment: Style(dim=True, italic=True),
        TokenType.Keyword: Style(color="magenta"),
        TokenType.Operator.Word: Style(color="magenta"),
        TokenType.Name.Builtin: Style(color="cyan"),
        TokenType.Name.Function: Style(bold=True),
        TokenType.Name.Class: Style(bold=True),
        TokenType.Name.Decorator: Style(color="cyan"),
        TokenType.Name.Attribute: Style(color="cyan"),
        TokenType.Name.Tag: Style(color="magenta"),
        TokenType.Literal.String: Style(color="green"),
        TokenType.Literal.Number: Style(color="cyan"),
        TokenType.Generic.Deleted: Style(color="red"),
        TokenType.Generic.Inserted: Style(color="green"),
        TokenType.Generic.Heading: Style(bold=True),
        TokenType.Error: Style(underline=True),
    }
)

_MAX_NESTING = 60  # what is nested deeper is dropped by the parser
_PARSER = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
_PARSER.enable(["strikethrough", "table"]).disable("reference")
_LISTS = ("bullet_list_open", "ordered_list_open")


@dataclass(frozen=True)
class Block:
    """A top-level block, or one item of a top-level list: the source lines `start` to `end`."""

    tokens: list[Token]
    source: list[str]
    start: int
    number: int = 0  # of an item in its list
    first: bool = True  # False: goes on from the block before it

    @property
    def kind(self) -> str:
        return self.tokens[0].type

    @property
    def code(self) -> list[str]:
        """The lines of a fence without its marks."""
        content = self.tokens[0].content
        return content.removesuffix("\n").split("\n") if content else []

    @property
    def closed(self) -> bool:
        """Has a fence its lower mark?"""
        return len(self.source) > len(self.code) + 1


def split(source: str, offset: int = 0) -> list[Block]:
    """The blocks of clean Markdown text. `offset` is added to the numbers of its first list."""
    lines = source.split("\n")
    tokens = _PARSER.parse(source)
    blocks: list[Block] = []
    for group in _groups(tokens, 0):
        if group[0].type not in _LISTS:
            blocks.append(_block(group, group[0], lines))
            continue
        number = int(group[0].attrs.get("start", 1)) + (0 if blocks else offset)
        for index, item in enumerate(_groups(group[1:-1], 1)):
            opening = group[0].copy(attrs={"start": number + index})
            block = _block([opening, *item, group[-1]], item[0], lines)
            blocks.append(replace(block, number=number + index, first=index == 0))
    return blocks


def code_blocks(source: str) -> list[str]:
    """The code in clean Markdown text, wherever it stands."""
    return [token.content for token in _PARSER.parse(source) if token.type in ("fence", "code_block")]


def _groups(tokens: list[Token], level: int) -> Iterator[list[Token]]:
    """Cuts a list of tokens after each one that stands alone, or closes, at this level."""
    group: list[Token] = []
    for token in tokens:
        group.append(token)
        if token.level == level and token.nesting <= 0:
            yield group
            group = []


def _block(tokens: list[Token], mapped: Token, lines: list[str]) -> Block:
    start, end = mapped.map or [0, len(lines)]
    for token in tokens:
        if token.type == "inline":
            token.children = list(_inline(token.children or []))
    return Block(tokens, lines[start:end], start)


def _inline(tokens: Iterable[Token]) -> Iterator[Token]:
    """Inline tokens as they are shown: addresses in full, line breaks kept.

    Entities (`&#x202e;`) are decoded by the parser, so text is cleaned again here.
    """
    text = href = ""
    for token in tokens:
        if token.type == "image":
            yield _text(f"{token.content} ({token.attrs.get('src', '')})" if token.content else str(token.attrs["src"]))
        elif token.type == "link_open":
            text, href = "", str(token.attrs.get("href", ""))
            yield Token("style_open", "link", 1)
        elif token.type == "link_close":
            yield Token("style_close", "link", -1)
            if href not in (text, "mailto:" + text):
                yield from (_text(" ("), Token("style", "link_url", 0, content=clean(href)), _text(")"))
        else:
            content = clean(token.content)
            text += content
            yield token.copy(content=content, type="hardbreak" if token.type == "softbreak" else token.type)


def _text(content: str) -> Token:
    return Token("text", "", 0, content=clean(content))


class Highlighter:
    """Colours code that arrives in parts; a part is read again together with some of the lines before it."""

    def __init__(self, language: str) -> None:
        lexer = Syntax("", language or "text").lexer
        self._syntax = Syntax("", lexer or "text", theme=CODE_THEME, word_wrap=True)
        self._context: list[str] = []
        self._patience = 2 * LEXER_CONTEXT

    def lines(self, code: list[str]) -> list[Text]:
        return self._highlight(self._context + code)[len(self._context) :]

    def advance(self, code: list[str]) -> None:
        """These lines are shown. They stay as context until starting further down gives the same colours."""
        self._context += code
        if len(self._context) <= self._patience:
            return
        near, compared = self._context[-LEXER_CONTEXT:], LEXER_CONTEXT // 2
        same = self._highlight(near)[-compared:] == self._highlight(self._context)[-compared:]
        if same or len(self._context) > 64 * LEXER_CONTEXT:
            self._context, self._patience = near, 2 * LEXER_CONTEXT
        else:
            self._patience = 2 * len(self._context)

    def _highlight(self, code: list[str]) -> list[Text]:
        code = [line.expandtabs(4) for line in code]
        if max(map(len, code), default=0) <= LEXER_COLUMNS:
            lines = list(self._syntax.highlight("\n".join(code)).split("\n", allow_blank=True))[: len(code)]
            if [line.plain for line in lines] == code:  # a lexer may drop what it doesn't understand
                return lines
        return [Text(line) for line in code]


class _Heading(Heading):
    """All headings on the left: centred lines don't survive a change of width."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Rule(HorizontalRule):
    new_line = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(options.max_width, 40), style=console.get_style("markdown.hr", default="dim"))


class _Code(CodeBlock):
    """Code between dim marks, unindented: it can be copied as it stands."""

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> _Code:
        return cls(_language(token), "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _mark(self.lexer_name)
        yield from Highlighter(self.lexer_name).lines(_without_end(self.text.plain.split("\n")))
        yield _mark()


class _Item(ListItem):
    """A list item whose layout doesn't depend on how many will follow."""

    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._render(console, options, " • ", console.get_style("markdown.item.bullet", default="none"))

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        style = console.get_style("markdown.item.number", default="none")
        yield from self._render(console, options, f"{number:2}. ", style)

    def _render(self, console: Console, options: ConsoleOptions, bullet: str, style: Style) -> RenderResult:
        inner = options.update(width=options.max_width - len(bullet))
        lines = console.render_lines(self.elements, inner, style=self.style, pad=False)
        for index, line in enumerate(lines or [[]]):
            yield Segment(" " * len(bullet) if index else bullet, style)
            yield from line
            yield Segment.line()


class _Table(TableElement):
    """A table whose cells fold: rich would cut a long word off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, style="markdown.table.border")
        for cell in self.header.row.cells if self.header and self.header.row else []:
            table.add_column(cell.content, overflow="fold", justify=cell.justify, header_style="markdown.table.header")
        for row in self.body.rows if self.body else []:
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class _Markdown(Markdown):
    """Tokens of `split`, rendered."""

    elements: ClassVar = Markdown.elements | {
        "heading_open": _Heading, "hr": _Rule, "fence": _Code, "code_block": _Code, "list_item_open": _Item,
        "table_open": _Table,
    }  # fmt: skip
    inlines = Markdown.inlines | {"link", "link_url"}

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = tokens


def _language(token: Token) -> str:
    return clean_line((token.info.split() or [""])[0], 30)


def _mark(language: str = "") -> Text:
    return Text("```" + language, style="dim")


def _without_end(code: list[str]) -> list[str]:
    """Lines of code without the blank ones at their end."""
    text = [index for index, line in enumerate(code) if line.strip()]
    return code[: text[-1] + 1] if text else []


def _room(tokens: list[Token], width: int) -> int:
    """Columns left for text in the deepest block; none if the parser gave up on it."""
    room, least, columns = width, width, 0
    for token in tokens:
        if token.type in ("blockquote_open", "blockquote_close", "list_item_open", "list_item_close"):
            room -= 4 * token.nesting
        elif token.type == "th_open":
            columns += 1
        elif token.type == "table_close":
            columns = 0
        least = min(least, room - 4 * columns) if token.level < _MAX_NESTING - 2 else 0
    return least


def _render(console: Console, renderable: RenderableType, width: int) -> list[Line]:
    lines = console.render_lines(renderable, console.options.update(width=width, height=None), pad=False)
    return [_trim(line) for line in lines]


def _trim(line: Line) -> Line:
    """Without spaces at its end: a terminal that changes its width then wraps no emptiness."""
    line = [segment for segment in line if segment.text and not segment.control]
    while line:
        if text := line[-1].text.rstrip(" "):
            return [*line[:-1], Segment(text, line[-1].style)]
        line = line[:-1]
    return []


def _render_block(console: Console, block: Block, width: int) -> list[Line]:
    """Never fails: what rich cannot lay out is shown as it was written."""
    if _room(block.tokens, width) >= MIN_COLUMNS:
        try:
            lines = _render(console, _Markdown(block.tokens), width)
            return lines[next((i for i, line in enumerate(lines) if line), len(lines)) :]  # rich may begin with a blank
        except Exception:
            pass  # a reply must not be lost because a library trips over a construct in it
    return _render(console, Text("\n".join(block.source)), width)


@dataclass
class _Carry:
    """What an open list or fence leaves behind when its first part is cut away: a line to parse before the rest."""

    prefix: str = ""
    number: int = 0  # of the list item before the rest
    code: Highlighter | None = None


class MarkdownStream:
    """Clean text in, rendered lines out: finished ones from `commit`, once each, the rest from `live`.

    The joined results of `commit` don't depend on how the text was cut, and equal `render` of the whole text.
    (Colours of code may differ where a lexer changes its mind about lines more than `FENCE_KEEPS` further up.)
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._source = ""
        self._carry = _Carry()
        self._started = False

    def feed(self, text: str) -> None:
        self._source += text

    def commit(self, width: int, final: bool = False) -> list[Line]:
        """Lines that can no longer change; with `final`, all that are left."""
        blocks = self._blocks(self._source if final else self._source[: self._source.rfind("\n") + 1])
        if not blocks or final:
            self._source = "" if final else self._source
            return self._lay_out(blocks, width)
        done, last = blocks[:-1], blocks[-1]
        lines = self._lay_out(done, width)
        self._started = self._started or bool(lines)
        if done:
            self._cut(last.start, self._carry_list(last, done[-1].number))
            last = replace(last, start=0)
        return lines + self._commit_fence(last, width)

    def live(self, width: int) -> list[Line]:
        """The rest as it would look if the text ended here, but for the lower mark of an open fence."""
        return self._lay_out(self._blocks(self._source), width, growing=True)

    def _blocks(self, text: str) -> list[Block]:
        carry = self._carry
        blocks = split(carry.prefix + text, carry.number - 1 if carry.number else 0)
        if carry.code:
            return [replace(blocks[0], first=False), *blocks[1:]]
        return blocks[1:] if carry.prefix else blocks

    def _lay_out(self, blocks: list[Block], width: int, growing: bool = False) -> list[Line]:
        lines: list[Line] = []
        for block in blocks:
            if block.kind == "fence":
                shown = self._fence(block, block.code, width, closed=block.closed or not growing)
            else:
                shown = _render_block(self._console, block, width)
            between: list[Line] = [[]] if shown and block.first and (self._started or lines) else []
            lines += between + shown
        return lines

    def _fence(self, block: Block, code: list[str], width: int, closed: bool) -> list[Line]:
        lexer = self._lexer(block)
        shown = [_mark(_language(block.tokens[0]))] if block.first else []
        shown += lexer.lines(_without_end(code) if closed else code)
        return [line for text in shown + [_mark()] * closed for line in _render(self._console, text, width)]

    def _lexer(self, block: Block) -> Highlighter:
        return (not block.first and self._carry.code) or Highlighter(_language(block.tokens[0]))

    def _commit_fence(self, block: Block, width: int) -> list[Line]:
        """The lines of an open fence but the last few, and no blank ones that may turn out to end it."""
        take = min(len(block.code) - FENCE_KEEPS, len(_without_end(block.code)))
        if block.kind != "fence" or block.closed or take < FENCE_KEEPS:
            return []
        code = block.code[:take]
        lexer = self._lexer(block)
        lines: list[Line] = [[]] if block.first and self._started else []
        lines += self._fence(block, code, width, closed=False)
        lexer.advance(code)
        mark = block.tokens[0].markup
        self._cut(block.start + 1 + take, _Carry(block.source[0].split(mark)[0] + mark + "\n", code=lexer))
        self._started = True
        return lines

    def _carry_list(self, block: Block, number: int) -> _Carry:
        """If the block goes on with a list: an item of the same indent and kind as the block, to come before it."""
        if block.first:
            return _Carry()
        indent = len(block.source[0]) - len(block.source[0].lstrip(" "))
        marker = ("1" if block.kind == "ordered_list_open" else "") + block.tokens[0].markup
        return _Carry(f"{' ' * indent}{marker} x\n", number)

    def _cut(self, start: int, carry: _Carry) -> None:
        lines = (self._carry.prefix + self._source).split("\n")
        self._source, self._carry = "\n".join(lines[start:]), carry


def render(console: Console, text: str, width: int) -> list[Line]:
    """A whole Markdown text as lines of at most `width` columns."""
    stream = MarkdownStream(console)
    stream.feed(clean(text))
    return stream.commit(width, final=True)
