"""A bundle's page: chapters in their order, everything in it, texts from elsewhere harmless, nothing asked of anybody."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from html.parser import HTMLParser

from chaos.evidence.bundle import FIRST, Broken, Bundle, RedProof, Verdict, text
from chaos.evidence.page import page
from chaos.evidence.picture import broken_spans
from chaos.evidence.seal import read, seal
from tests.unit.chaos.sample import parts, signer

NASTY = "</td></title><script>alert(1)</script><img src=x onerror=y>\u202ereversed\x1b[2J&"


def bundle_of(**given: object) -> Bundle:
    return read(seal(parts(**given), 1, FIRST, signer()), signer().public)  # type: ignore[arg-type]


def test_chapters_stand_in_their_order_and_hold_what_the_bundle_says() -> None:
    shown = page(bundle_of(), "genuine")
    places = [shown.index(f"<h2>{chapter} ") for chapter in ("8.3", "8.4", "8.5", "9")]
    assert places == sorted(places)
    said = ["600 ms", "at most 1,000 ms", "RPO_source", "120 ms", "killed node-a", "member-1", "00ff", "ab" * 32, "taken over"]
    for words in (*said, "no red run yet", "genuine", "Ctrl-C", ">pass<"):
        assert words in shown, words
    HTMLParser().feed(shown)


def test_texts_from_elsewhere_stay_texts() -> None:
    shown = page(bundle_of(text=text(NASTY), red=RedProof(text(NASTY), Verdict.FAIL, "ab" * 32, text(NASTY))), NASTY)
    tags = {tag.lower() for tag in re.findall(r"<\s*/?\s*([a-zA-Z]+)", shown)}
    assert not tags & {"script", "img", "iframe", "object", "link"} and "\u202e" not in shown and "\x1b" not in shown
    assert "&lt;script&gt;" in shown
    assert not re.search(r"\b(src|href|url)\s*[=(]", re.sub(r"&lt;.*?&gt;", "", shown)), "it asks nobody for anything"
    xml.fromstring(shown[shown.index("<svg") : shown.index("</svg>") + 6])


def test_a_red_run_says_so() -> None:
    shown = page(bundle_of(verdict=Verdict.FAIL, planted="no brake"), "genuine")
    assert "Red run" in shown and "no brake" in shown


def test_spans_of_faults() -> None:
    log = [Broken(5, "a", "active"), Broken(7, "b", "active"), Broken(9, "a", "healed"), Broken(9, "c", "stuck")]
    assert broken_spans(log, 20) == [("a", 5, 9), ("b", 7, 20)]
