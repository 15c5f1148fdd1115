"""References in docstrings, as text and as BibTeX: nothing is told that the text does not say.

Docstrings name a source as: Family names YEAR, "Title" (nickname), venue, arXiv ID. All but names
and year may be left out, and `et al.` may stand for the other authors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_PARTICLE = r"(?:[Vv]an|[Vv]on|[Dd]e[nr]?|[Aa]f|[Dd]i|[Dd]u|[Ll]a|[Ll]e|[Tt]e[nr])"
_NAME = rf"(?:{_PARTICLE}\s)*[A-Z][\w'’]*[a-z](?:-[A-Z][\w'’]+)*"
_HEAD = re.compile(
    rf"(?<!\w)(?P<names>{_NAME}(?:(?:,\s+and\s+|\s+and\s+|,\s+){_NAME})*)(?P<others>\s+et\s+al\.)?"
    r"\s+(?P<year>(?:18|19|20)\d\d)[a-z]?(?![\w-]|\.\d)"
)
_TITLE = re.compile(r'^,?\s*"(?P<title>[^"]+)"')
_ID = r"\d{4}\.\d{4,5}"
_ARXIV = re.compile(rf"arXiv[: ]\s*({_ID}(?:(?:, | and ){_ID})*)")
_DOI = re.compile(r"doi:(?P<doi>10\.\d+/[^\s),;]*[^\s),;.])")
_VENUE = re.compile(
    r"(?:^|, )(?P<venue>(?:IEEE|CVPR|ICLR|JASA|Biometrika|Optics Express)"
    r"(?:, (?=\d)|[^,;:\"()]|\(\d+\))*)"
)
_END = re.compile(r"(?<!Trans)(?<!Proc)(?<! al)[.;:](?=\s|$)")


@dataclass(frozen=True)
class Reference:
    """A source, as far as a text tells of it.

    authors: family names; others: whether there are more than these. where: journal or conference.
    """

    authors: tuple[str, ...]
    year: str
    title: str = ""
    where: str = ""
    arxiv: str = ""
    doi: str = ""
    others: bool = False

    @property
    def key(self) -> str:
        """Name of the entry in BibTeX: first author, year, and the arXiv id where there is one."""
        name = re.sub(r"[^a-z]", "", self.authors[0].lower()) + self.year
        return f"{name}-{self.arxiv}" if self.arxiv else name

    @property
    def findable(self) -> bool:
        """Whether a reader can find it by what is told: a title, an arXiv id or a DOI."""
        return bool(self.title or self.arxiv or self.doi)

    def same(self, other: Reference) -> bool:
        """Whether both may mean one source: by arXiv id, else by year and authors."""
        if self.arxiv and other.arxiv:
            return self.arxiv == other.arxiv
        if self.others or other.others:
            return (self.authors[0], self.year) == (other.authors[0], other.year)
        return (self.authors, self.year) == (other.authors, other.year)

    def text(self) -> str:
        """One line: authors year, "title", where, arXiv id, doi."""
        names = f"{', '.join(self.authors)}{' et al.' * self.others} {self.year}"
        parts = [names, f'"{self.title}"' * bool(self.title), self.where]
        parts += [f"arXiv {self.arxiv}" * bool(self.arxiv), f"doi {self.doi}" * bool(self.doi)]
        return ", ".join(filter(None, parts))

    def bibtex(self) -> str:
        """An entry of BibTeX; authors have no given names, for no text here has them."""
        names = [f"{{{name}}}" if " " in name else name for name in self.authors]
        fields = {
            "author": " and ".join([*names, *["others"] * self.others]),
            "title": f"{{{_escaped(self.title)}}}" if self.title else "",
            "year": self.year,
            "howpublished": _escaped(self.where),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
            "doi": self.doi,
        }
        return entry("misc", self.key, fields)


def entry(kind: str, key: str, fields: dict[str, str]) -> str:
    """An entry of BibTeX of the fields that are not empty."""
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _escaped(text: str) -> str:
    return re.sub(r"([&%#_])", r"\\\1", text)


def parse(text: str) -> list[Reference]:
    """The references in a text, in its order; one with two arXiv ids is two of them."""
    text = " ".join(text.split())
    found = []
    heads = list(_HEAD.finditer(text))
    for head, after in zip(heads, [*heads[1:], None], strict=False):
        tail = text[head.end() : after.start() if after else None]
        title = _TITLE.match(tail)
        tail = _sentence(tail[title.end() :] if title else tail)
        venue, doi = _VENUE.search(tail), _DOI.search(tail)
        one = Reference(
            tuple(re.split(r",\s+and\s+|\s+and\s+|,\s+", head["names"])),
            head["year"],
            title["title"] if title else "",
            venue["venue"].strip() if venue else "",
            doi=doi["doi"] if doi else "",
            others=bool(head["others"]),
        )
        ids = [i for group in _ARXIV.findall(tail) for i in re.findall(_ID, group)]
        found += [replace(one, arxiv=i) for i in ids] or [one]
    return found


def _sentence(tail: str) -> str:
    """What belongs to a reference: up to the end of its sentence, or of the bracket around it."""
    end = _END.search(tail)
    tail, depth = tail[: end.start()] if end else tail, 0
    for i, c in enumerate(tail):
        depth += {"(": 1, ")": -1}.get(c, 0)
        if depth < 0:
            return tail[:i]
    return tail


def completed(reference: Reference, known: Iterable[Reference]) -> Reference:
    """The reference with what others that mean the same source tell beside it.

    Without an arXiv id it may mean several sources (`Song et al. 2021`): then it stays as it is.
    """
    others = [other for other in known if reference.same(other)]
    if len({other.arxiv for other in others} - {""}) > 1:
        return reference
    for other in others:
        more = reference.others and not other.others
        reference = replace(
            reference,
            authors=other.authors if more else reference.authors,
            others=reference.others and not more,
            title=reference.title or other.title,
            where=reference.where or other.where,
            arxiv=reference.arxiv or other.arxiv,
            doi=reference.doi or other.doi,
        )
    return reference


def unique(references: Iterable[Reference]) -> list[Reference]:
    """Every source once; one that may mean several is kept."""
    kept: list[Reference] = []
    for reference in references:
        twins = [other for other in kept if reference.same(other)]
        if not any(bool(other.arxiv) == bool(reference.arxiv) for other in twins):
            kept.append(reference)
    return kept
