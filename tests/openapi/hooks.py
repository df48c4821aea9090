"""What schemathesis cannot know of this: how an alert looks. Any other XML is refused as no alert, whatever the description says."""

import schemathesis
from hypothesis import strategies as st

ALERT = """<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
  <identifier>{identifier}</identifier><sender>{sender}</sender><sent>{sent}</sent>
  <status>{status}</status><msgType>{kind}</msgType><scope>{scope}</scope>{references}
  <info>
    <language>zh-CN</language><category>Met</category><event>暴雨</event>
    <urgency>Immediate</urgency><severity>{severity}</severity><certainty>Observed</certainty>
    <senderName>气象台</senderName><headline>{headline}</headline>
    <area><areaDesc>全市</areaDesc><geocode><valueName>GB/T 2260</valueName><value>310000</value></geocode></area>
  </info>
</alert>"""


@st.composite
def alerts(draw):
    kind = draw(st.sampled_from(["Alert", "Alert", "Update", "Cancel", "Ack"]))
    sender, sent = "weather@example.cn", "2026-01-01T00:00:00+08:00"
    refers = f"<references>{sender},{draw(st.integers(0, 20))},{sent}</references>" if kind in ("Update", "Cancel") else ""
    return ALERT.format(
        identifier=draw(st.integers(0, 20)),
        sender=draw(st.sampled_from([sender, sender, "nobody@example.cn"])),
        sent=draw(st.sampled_from([sent, sent, "2099-01-01T00:00:00+08:00"])),
        status=draw(st.sampled_from(["Actual", "Actual", "Exercise", "Test"])),
        kind=kind,
        scope=draw(st.sampled_from(["Public", "Public", "Private"])),
        references=refers,
        severity=draw(st.sampled_from(["Extreme", "Severe", "Minor", "Unknown"])),
        headline=draw(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=200)),
    ).encode()


schemathesis.openapi.media_type("application/cap+xml", alerts())
