"""The demo's page shows every fault, escapes what it prints, and asks nothing of anybody."""

import xml.etree.ElementTree as xml
from html.parser import HTMLParser

from ops.demo.cluster_judge import Span, State
from ops.demo.judge import NS_PER_MS, Judgement, Lane, Lookup, Verdict
from ops.demo.page import Moment, page


def a_page(count: int = 3) -> str:
    lookups = [
        Lookup(Lane.HEDGED, "tcp", "a", "88.118/x", n * NS_PER_MS, (n + 2) * NS_PER_MS, right=n != 1) for n in range(count)
    ]
    judged = Judgement(Verdict.FAIL, ("a <b> & c",), {"rto_first_ms": None, "digest_equal": True, "records": 51_000})
    spans = [Span("m<1>", State.DOWN, NS_PER_MS, 2 * NS_PER_MS), Span("m<1>", State.FED, 2 * NS_PER_MS, 3 * NS_PER_MS)]
    moments = [Moment(NS_PER_MS, "fault", "<script>killed</script>")]
    return page(judged, moments, lookups, "two cores", ("m<1>", "m2"), spans)


def test_what_it_prints_is_escaped_and_whole() -> None:
    text = a_page()
    assert "<script" not in text
    assert "a &lt;b&gt; &amp; c" in text
    assert all(word in text for word in ("not measured", "yes", "51,000", "two cores", "0.001 s"))
    HTMLParser().feed(text)
    xml.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])


def test_each_member_has_a_lane_with_what_happened_to_it() -> None:
    text = a_page()
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert svg.count('fill="#aceebb"') == 2, "two members"
    assert "m&lt;1&gt;" in svg and "down, 1 ms" in svg and "fed anew, 1 ms" in svg


def test_it_loads_nothing_from_anywhere() -> None:
    assert not any(word in a_page() for word in ("http", "src=", "@import", "url("))


def test_a_long_run_stays_small_and_hides_no_wrong_answer() -> None:
    text = a_page(100_000)
    assert len(text) < 400_000
    assert text.count('#cf222e"/>') == 1
