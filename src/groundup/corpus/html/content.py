"""Which blocks of a page are its main text.

Paragraphs vote for the elements around them, the nearer the more, as in Arc90's Readability (2009): the one with
the most votes holds the text. From there we climb to elements that hold more of the same (the sections of a
manual, the posts of a thread), take in siblings that are prose as well, and cut what is left of menus, lists of
links, bylines and calls to share from the inside and from both ends.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from groundup.corpus.html.blocks import HEADINGS, HtmlPage, Node, TextBlock

_VOTES = (1.0, 0.5, 1 / 6, 1 / 9, 1 / 12, 1 / 15)  # for the parent, the grandparent, ...: Readability's
_PARTS = frozenset(("blockquote", "dd", "dl", "dt", "li", "ol", "table", "tbody", "thead", "tr", "ul"))  # of a text
_SHORTEST = 25  # characters of a paragraph that votes: a sentence, no label
_PROSE = 40  # characters of what begins and ends a text
_FEW_VOTES = 4.0  # a short paragraph or two
_PATIENCE = 4  # elements to look at on the way up
_COMMAS = re.compile("[,，、،;；]")
_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")  # a character of these says what three letters say
_SENTENCE_END = re.compile(r"[.!?:;。！？…»”\"'’)\]]\W*$")


def text_length(text: str) -> int:
    """Length of a text in letters; a Chinese character counts as three."""
    return len(text) if text.isascii() else len(text) + 2 * len(_WIDE.findall(text))


def main_blocks(page: HtmlPage) -> list[TextBlock]:
    """The blocks of the main text, in the order of reading; none where a page has no text at all."""
    weights = [_weight(block) for block in page.blocks]
    _acquit(page, weights)
    blocks = [(block, weight) for block, weight in zip(page.blocks, weights, strict=True) if not block.node.boilerplate]
    _vote(page, blocks)
    top = _climb(page, max(page.nodes, key=lambda node: node.score))
    _keep(page, top)
    chosen = _cut([block for block, _ in blocks if block.node.kept or _is_stray(block, top)])
    if sum(text_length(block.text) for block in chosen) < _FEW_VOTES * _PROSE:
        everything = _cut([block for block, _ in blocks])  # a page of many small things
        return max(chosen, everything, key=lambda some: sum(len(block.text) for block in some))
    return chosen


def _weight(block: TextBlock) -> float:
    unlinked = text_length(block.text) - block.linked
    if block.kind in HEADINGS:
        return 0.0
    if block.kind == "pre":
        return min(unlinked / 100, 3)
    if unlinked < _SHORTEST or block.linked > 0.5 * len(block.text):
        return 0.0
    return 1 + min(unlinked / 100, 3) + min(len(_COMMAS.findall(block.text)), 10) / 2


def _acquit(page: HtmlPage, weights: Sequence[float]) -> None:
    """Spread the names' verdict to all that is inside, but for elements that hold most of the page's text."""
    for block, weight in zip(page.blocks, weights, strict=True):
        block.node.weight += weight
    for node in reversed(page.nodes[1:]):
        node.parent.weight += node.weight  # type: ignore[union-attr]
    total = page.root.weight
    for node in page.nodes:
        if node.boilerplate and not node.comments and node.weight > 0.5 * total:
            node.boilerplate = False
    guilty = [node for node in page.nodes if node.boilerplate]
    _inherit(page.nodes)
    left = sum(weight for block, weight in zip(page.blocks, weights, strict=True) if not block.node.boilerplate)
    if left < _FEW_VOTES:  # a forum, whose posts are called comments; a page inside of a pop-up
        for node in page.nodes:
            node.boilerplate = False
        for node in guilty:
            node.boilerplate = node.weight <= 0.3 * total
        _inherit(page.nodes)


def _inherit(nodes: Iterable[Node]) -> None:
    for node in nodes:
        if node.parent is not None and node.parent.boilerplate:
            node.boilerplate = True


def _vote(page: HtmlPage, blocks: Sequence[tuple[TextBlock, float]]) -> None:
    for node in page.nodes:
        node.weight = 0.0
    for block, weight in blocks:
        block.node.length += len(block.text)
        if not weight:
            continue
        block.node.weight += weight
        block.node.prose += len(block.text) - block.linked
        block.node.paragraphs += 1
        holder: Node | None = block.node
        if holder is not page.root and holder is not None and holder.tag != "td":  # td: pages that are laid out in one
            holder = holder.parent
        while holder is not None and holder.tag in _PARTS:
            holder = holder.parent
        for share in _VOTES:
            if holder is None:
                break
            holder.score += weight * share
            holder = holder.parent
    for node in reversed(page.nodes[1:]):
        parent = node.parent
        assert parent is not None
        parent.weight += node.weight
        parent.prose += node.prose
        parent.length += node.length
        parent.paragraphs += node.paragraphs


def _climb(page: HtmlPage, best: Node) -> Node:
    """The element that holds all parts of a text whose part `best` is."""
    kin: dict[tuple[Node | None, str, str], list[Node]] = defaultdict(list)
    for each in page.nodes:
        if each.names or each.tag in ("article", "section"):
            kin[each.parent, each.tag, each.names].append(each)
    top, below, patience = best, best, _PATIENCE
    node: Node | None = best.parent
    while node is not None and patience:
        prose, length = node.prose - top.prose, node.length - top.length
        more_prose = (
            node.weight - top.weight > 0.1 * top.weight
            and prose > 0.88 * length
            and prose > 100 * (node.paragraphs - top.paragraphs)
        )
        more_of_a_kind = any(
            other is not below and other.weight > 0.15 * below.weight and other.prose > 0.75 * other.length
            for other in kin.get((node, below.tag, below.names), ())
        )
        if more_prose or more_of_a_kind or node.score > 0.75 * best.score:
            top, patience = node, _PATIENCE
        else:
            patience -= 1
        below, node = node, node.parent
    return top


def _keep(page: HtmlPage, top: Node) -> None:
    for node in page.nodes:
        node.kept = (
            node is top
            or (node.parent is not None and node.parent.kept)
            or (
                node.parent is top.parent
                and node.weight >= max(3, 0.15 * top.weight)
                and node.prose > 0.85 * node.length
                and node.prose > 80 * node.paragraphs
            )
        )


def _is_stray(block: TextBlock, top: Node) -> bool:
    """Whether it is a long paragraph beside the main element."""
    return (
        block.kind == "p"
        and top.parent is not None
        and block.node.parent is top.parent
        and len(block.text) > 2 * _PROSE
        and block.linked < 0.25 * len(block.text)
    )


def _cut(blocks: Sequence[TextBlock]) -> list[TextBlock]:
    """Without lists of links, and without what stands before the first and after the last sentence."""
    inside = [
        block
        for block in blocks
        if block.linked < 0.5 * len(block.text)
        or block.kind in HEADINGS
        or (block.kind == "p" and len(block.text) - block.linked > _PROSE)  # an encyclopedia's
    ]
    prose = [at for at, block in enumerate(inside) if _is_prose(block)]
    if not prose:
        return inside  # a poem, whose lines are short
    start = prose[0]
    end = next(at for at in range(len(inside), start, -1) if _may_end(inside[at - 1]))
    while start > 0 and inside[start - 1].kind in HEADINGS and inside[start - 1].kind != "h1":
        start -= 1
    return inside[start:end]


def _is_prose(block: TextBlock) -> bool:
    return block.kind == "pre" or (
        block.kind not in HEADINGS and block.linked < 0.4 * len(block.text) and text_length(block.text) >= _PROSE
    )


def _may_end(block: TextBlock) -> bool:
    if block.kind in HEADINGS:
        return False
    is_part = block.kind in ("dd", "li", "td") and len(block.text) > _PROSE // 2
    return _is_prose(block) or is_part or _SENTENCE_END.search(block.text) is not None
