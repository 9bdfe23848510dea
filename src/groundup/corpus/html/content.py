"""Select the blocks of a page that are its main text.

As in Arc90's Readability (2009), each paragraph votes for the elements that enclose it. The weight of a vote decreases
with the distance. The element with the most votes contains the main text. The selection is extended to ancestors with
similar content (the sections of a manual, the posts of a thread) and to siblings that contain prose. Finally, menus,
lists of links, bylines and share buttons that are still selected are removed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from groundup.corpus.html.blocks import HEADINGS, HtmlPage, Node, TextBlock

# Fractions of a paragraph's vote that its parent, its grandparent and so on receive, as in Readability.
_VOTES = (1.0, 0.5, 1 / 6, 1 / 9, 1 / 12, 1 / 15)
_PARTS = frozenset(
    ("blockquote", "dd", "dl", "dt", "li", "ol", "table", "tbody", "thead", "tr", "ul")
)  # elements inside a text, whose votes go to an ancestor
_MIN_VOTER = 25  # minimum number of characters of a paragraph that votes
_MIN_PROSE = 40  # minimum number of characters of a block that can start or end the main text
_MIN_VOTES = 4.0  # minimum sum of votes of a main text, equal to the votes of one or two short paragraphs
_PATIENCE = 4  # number of ancestors to check after the last ancestor that was accepted
_COMMAS = re.compile("[,，、،;；]")
# Chinese, Japanese and Korean characters, which count as three letters.
_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_SENTENCE_END = re.compile(r"[.!?:;。！？…»”\"'’)\]]\W*$")


def text_length(text: str) -> int:
    """Return the length of a text in characters. A Chinese, Japanese or Korean character counts as three characters."""
    return len(text) if text.isascii() else len(text) + 2 * len(_WIDE.findall(text))


def main_blocks(page: HtmlPage) -> list[TextBlock]:
    """Return the blocks of the main text in reading order."""
    weights = [_weight(block) for block in page.blocks]
    _clear_false_boilerplate(page, weights)
    blocks = [(block, weight) for block, weight in zip(page.blocks, weights, strict=True) if not block.node.boilerplate]
    _vote(page, blocks)
    top = _climb(page, max(page.nodes, key=lambda node: node.score))
    _keep(page, top)
    chosen = _cut([block for block, _ in blocks if block.node.kept or _is_separate_paragraph(block, top)])
    if sum(text_length(block.text) for block in chosen) < _MIN_VOTES * _MIN_PROSE:
        everything = _cut([block for block, _ in blocks])  # the page may consist of many small blocks
        return max(chosen, everything, key=lambda selection: sum(len(block.text) for block in selection))
    return chosen


def _weight(block: TextBlock) -> float:
    unlinked = text_length(block.text) - block.linked
    if block.kind in HEADINGS:
        return 0.0
    if block.kind == "pre":
        return min(unlinked / 100, 3)
    if unlinked < _MIN_VOTER or block.linked > 0.5 * len(block.text):
        return 0.0
    return 1 + min(unlinked / 100, 3) + min(len(_COMMAS.findall(block.text)), 10) / 2


def _clear_false_boilerplate(page: HtmlPage, weights: Sequence[float]) -> None:
    """Mark the descendants of boilerplate elements as boilerplate.

    An element that contains most of the text of the page is not boilerplate, even if its class or id indicates
    boilerplate.
    """
    for block, weight in zip(page.blocks, weights, strict=True):
        block.node.weight += weight
    for node in reversed(page.nodes[1:]):
        node.parent.weight += node.weight  # type: ignore[union-attr]
    total = page.root.weight
    for node in page.nodes:
        if node.boilerplate and not node.comments and node.weight > 0.5 * total:
            node.boilerplate = False
    boilerplate = [node for node in page.nodes if node.boilerplate]
    _inherit(page.nodes)
    remaining = sum(weight for block, weight in zip(page.blocks, weights, strict=True) if not block.node.boilerplate)
    if remaining < _MIN_VOTES:  # forum posts may have the class "comment", and a whole page may be in a pop-up
        for node in page.nodes:
            node.boilerplate = False
        for node in boilerplate:
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
        if holder is not page.root and holder is not None and holder.tag != "td":  # td: table layouts
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
    """Return the ancestor of `best` that contains all parts of the main text."""
    similar: dict[tuple[Node | None, str, str], list[Node]] = defaultdict(list)
    for each in page.nodes:
        if each.names or each.tag in ("article", "section"):
            similar[each.parent, each.tag, each.names].append(each)
    top, below, patience = best, best, _PATIENCE
    node: Node | None = best.parent
    while node is not None and patience:
        prose, length = node.prose - top.prose, node.length - top.length
        more_prose = (
            node.weight - top.weight > 0.1 * top.weight
            and prose > 0.88 * length
            and prose > 100 * (node.paragraphs - top.paragraphs)
        )
        has_similar_siblings = any(
            other is not below and other.weight > 0.15 * below.weight and other.prose > 0.75 * other.length
            for other in similar.get((node, below.tag, below.names), ())
        )
        if more_prose or has_similar_siblings or node.score > 0.75 * best.score:
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


def _is_separate_paragraph(block: TextBlock, top: Node) -> bool:
    """Return whether a block is a long paragraph that is a sibling of the main element."""
    return (
        block.kind == "p"
        and top.parent is not None
        and block.node.parent is top.parent
        and len(block.text) > 2 * _MIN_PROSE
        and block.linked < 0.25 * len(block.text)
    )


def _cut(blocks: Sequence[TextBlock]) -> list[TextBlock]:
    """Remove lists of links, the blocks before the first sentence, and the blocks after the last sentence."""
    inside = [
        block
        for block in blocks
        if block.linked < 0.5 * len(block.text)
        or block.kind in HEADINGS
        # A paragraph with many links, as in an encyclopedia.
        or (block.kind == "p" and len(block.text) - block.linked > _MIN_PROSE)
    ]
    prose = [at for at, block in enumerate(inside) if _is_prose(block)]
    if not prose:
        return inside  # the text may be a poem with short lines
    start = prose[0]
    end = next(at for at in range(len(inside), start, -1) if _may_end(inside[at - 1]))
    while start > 0 and inside[start - 1].kind in HEADINGS and inside[start - 1].kind != "h1":
        start -= 1
    return inside[start:end]


def _is_prose(block: TextBlock) -> bool:
    return block.kind == "pre" or (
        block.kind not in HEADINGS and block.linked < 0.4 * len(block.text) and text_length(block.text) >= _MIN_PROSE
    )


def _may_end(block: TextBlock) -> bool:
    if block.kind in HEADINGS:
        return False
    is_part = block.kind in ("dd", "li", "td") and len(block.text) > _MIN_PROSE // 2
    return _is_prose(block) or is_part or _SENTENCE_END.search(block.text) is not None
