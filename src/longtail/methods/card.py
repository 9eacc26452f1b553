"""What the method list and a method's card tell a person."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A method's or modifier's card.

    Attributes:
        title: The method's full name.
        paper: Authors and venue.
        arxiv: arXiv number, or an empty string.
        idea: One or two sentences.
        use: When it helps and when not.
        cost: Training cost relative to plain cross-entropy.
        teacher: Whether the method learns from a finished run, where one is given.
    """

    title: str
    paper: str
    arxiv: str
    idea: str
    use: str
    cost: str = "1x"
    teacher: bool = False
