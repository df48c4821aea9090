//! What is read, what is refused and as what, field by field; `tests/cap.rs` has whole files.

use proptest::prelude::*;

use super::*;

const HEAD: &str = "<identifier>i</identifier><sender>s@w.example</sender><sent>2026-12-01T15:30:00+08:00</sent>";
const KIND: &str = "<status>Actual</status><msgType>Alert</msgType><scope>Public</scope>";
const INFO: &str = "<category>Met</category><event>暴雨</event><urgency>Immediate</urgency>\
    <severity>Extreme</severity><certainty>Likely</certainty>";

fn document(inside: &str) -> String {
    format!("<alert xmlns=\"{NAMESPACE}\">{inside}</alert>")
}

fn with_info(inside: &str) -> String {
    document(&format!("{HEAD}{KIND}<info>{INFO}{inside}</info>"))
}

/// The field and the English words of what must be possible to read, and impossible to mean.
fn impossible(text: &str) -> (Option<&'static str>, String) {
    let refused = read(text.as_bytes()).unwrap_err();
    assert!(!refused.malformed, "{text}\n{refused}");
    assert!(!refused.words.zh.is_empty());
    (refused.field, refused.words.en)
}

fn malformed_as(bytes: impl AsRef<[u8]>, said: &str) {
    let refused = read(bytes.as_ref()).unwrap_err();
    let start: String = String::from_utf8_lossy(bytes.as_ref()).chars().take(200).collect();
    assert!(refused.malformed, "{start}\n{refused}");
    assert!(refused.words.en.contains(said), "{start}\n{refused}");
}

#[test]
fn the_smallest_alert_has_six_fields() {
    let alert = read(document(&format!("{HEAD}{KIND}")).as_bytes()).unwrap();
    assert_eq!((alert.identifier.as_str(), alert.sender.as_str()), ("i", "s@w.example"));
    assert_eq!(alert.sent, "2026-12-01T07:30:00Z".parse::<Time>().unwrap());
    assert_eq!((alert.status, alert.kind, alert.scope), (Status::Actual, MsgType::Alert, Scope::Public));
    assert_eq!((alert.infos.len(), alert.references.len(), alert.source), (0, 0, None));
}

#[test]
fn a_prefix_changes_nothing_and_text_is_text_however_written() {
    let plain = with_info("<headline>雨 &lt;&amp; 雷</headline><web/><note2/>").replace("<note2/>", "");
    let cdata = with_info("<headline>\r\n <![CDATA[雨 <]]>&#38; &#x96f7;<!-- 注 -->\t</headline><web> </web>");
    let prefixed =
        plain.replace("</", "</c:").replace('<', "<c:").replace("<c:/c:", "</c:").replace("xmlns=", "xmlns:c=");
    let alert = read(plain.as_bytes()).unwrap();
    assert_eq!(alert.infos[0].headline.as_deref(), Some("雨 <& 雷"));
    assert_eq!(alert.infos[0].web, None);
    assert_eq!(read(cdata.as_bytes()).unwrap(), alert);
    assert_eq!(read(prefixed.as_bytes()).unwrap(), alert, "{prefixed}");
    let declared = format!("\u{feff}<?xml version='1.0' encoding='utf-8' standalone='yes'?>\r\n<!-- 注 -->{plain}\n");
    assert_eq!(read(declared.as_bytes()).unwrap(), alert);
}

#[test]
fn what_is_not_needed_is_read_over() {
    let all = document(&format!(
        "{HEAD}{KIND}<restriction>r</restriction><addresses>a</addresses><code>c</code><code>d</code>\
         <incidents>x</incidents><info>{INFO}<audience>all</audience><resource><resourceDesc>图</resourceDesc>\
         <mimeType>image/png</mimeType><uri>file:///etc/passwd</uri><derefUri>AAAA</derefUri></resource>\
         <area><areaDesc>上海市</areaDesc><altitude>0</altitude><ceiling>9</ceiling></area></info>\
         <Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\"><SignedInfo><Reference URI=\"\"><Transforms>\
         <Transform><e:InclusiveNamespaces xmlns:e=\"http://www.w3.org/2001/10/xml-exc-c14n#\" PrefixList=\"x\"/>\
         </Transform></Transforms>&amp;</Reference></SignedInfo></Signature>"
    ));
    let alert = read(all.as_bytes()).unwrap();
    assert_eq!(alert.infos[0].areas[0].desc, "上海市");
    let located = all.replacen(
        "<alert ",
        "<alert xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xml:lang=\"zh\" xsi:schemaLocation=\"x http://127.0.0.1:1/x.xsd\" ",
        1,
    );
    assert_eq!(read(located.as_bytes()).unwrap(), alert);
}

#[test]
fn r41_what_is_no_cap_document_is_malformed() {
    let good = with_info("");
    for (text, said) in [
        (String::new(), "no alert"),
        ("{\"status\": \"Actual\"}".to_owned(), "outside"),
        ("上海".to_owned(), "outside"),
        (good.replace(NAMESPACE, "urn:oasis:names:tc:emergency:cap:1.1"), "send CAP 1.2"),
        (good.replace(NAMESPACE, "http://www.w3.org/2005/Atom"), "is not CAP 1.2's"),
        (good.replace(&format!(" xmlns=\"{NAMESPACE}\""), ""), "no namespace"),
        (good.replace("<alert ", "<c:alert ").replace("</alert>", "</c:alert>"), "the prefix `c`"),
        (good.replace("<info>", "<info xmlns=\"\">"), "no namespace"),
        (format!("<info xmlns=\"{NAMESPACE}\"/>"), "the root is <info>"),
        ("<Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\"/>".to_owned(), "the root is <Signature>"),
        (format!("{good}{good}"), "one alert at a time"),
        (format!("{good}雨"), "outside"),
        (format!("{good}&amp;"), "outside"),
        (format!("{good}<![CDATA[]]>"), "outside"),
        (good.replace("</alert>", ""), "ends within"),
        (good.replace("</info>", ""), "not well-formed"),
        (good.replace("<event>", "<event"), "cannot name"),
        (format!("<!DOCTYPE alert>{good}"), "DTD"),
        (format!("<?xml-model href=\"http://127.0.0.1:1/x\"?>{good}"), "processing instructions"),
        (format!(" <?xml version=\"1.0\"?>{good}"), "first"),
        (format!("<?xml version=\"1.1\"?>{good}"), "XML 1.0"),
        (format!("<?xml encoding=\"UTF-8\"?>{good}"), "declaration"),
        (format!("<?xml version=\"1.0\" encoding=\"UTF-7\"?>{good}"), "UTF-7"),
        (format!("<?xml version=\"1.0\" encoding=\"GBK\"?>{good}"), "GBK"),
        (good.replace("暴雨", "&rain;"), "&rain;"),
        (good.replace("暴雨", "&#0;"), "&#0;"),
        (good.replace("暴雨", "&#xD800;"), "&#xD800;"),
        (good.replace("暴雨", "&#8;"), "&#8;"),
        (good.replace("暴雨", "a & b"), "not well-formed"),
        (good.replace("暴雨", "a\u{8}b"), "U+0008"),
        (good.replace("暴雨", "]]>"), "]]>"),
        (good.replace("<event>", "<event a=\"1\" a=\"2\">"), "attribute"),
        (good.replace("<event>", "<event a=\"&x;\">"), "attribute"),
        (good.replace("<event>", "<event x:a=\"1\">"), "attribute"),
        (good.replace("暴雨", "<!-- -- -->"), "not well-formed"),
        (good.replace("<info>", "<info xmlns:xi=\"http://www.w3.org/2001/XInclude\"><xi:include href=\"/etc/passwd\"/>"), "XInclude"),
        (good.replace("<info>", "<Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\"><i xmlns=\"http://www.w3.org/2001/XInclude\"/></Signature><info>"), "XInclude"),
        (good.replace("暴雨", "<Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\"/>"), "cannot stand here"),
    ] {
        malformed_as(text, said);
    }
}

#[test]
fn r41_other_encodings_are_named() {
    let declared = format!("<?xml version=\"1.0\" encoding=\"GB18030\"?>{}", with_info(""));
    let mut gbk = declared.into_bytes();
    gbk.extend(b"\xb1\xa9\xd3\xea");
    malformed_as(gbk, "the encoding is GB18030");
    malformed_as(b"<alert>\xb1\xa9</alert>", "not UTF-8 from byte 7 on");
    let wide = |order: fn(u16) -> [u8; 2]| "<?xml?>".encode_utf16().flat_map(order).collect::<Vec<u8>>();
    malformed_as(wide(u16::to_le_bytes), "UTF-16");
    malformed_as([b"\xfe\xff", &wide(u16::to_be_bytes)[..]].concat(), "UTF-16");
    malformed_as(b"+ADw-alert+AD4-", "outside");
}

#[test]
fn a_refusal_names_its_line() {
    let text = with_info("<headline>\n\n&rain;</headline>");
    malformed_as(text, "line 3: there is no entity `&rain;`");
}

#[test]
fn what_cannot_be_meant_names_its_field() {
    let good = with_info("<area><areaDesc>上海市</areaDesc></area>");
    assert!(read(good.as_bytes()).is_ok());
    for (from, to, field, said) in [
        ("<identifier>i</identifier>", "", "identifier", "missing"),
        ("<sender>s@w.example</sender>", "<sender> \n</sender>", "sender", "missing"),
        ("<scope>Public</scope>", "", "scope", "missing"),
        ("<event>暴雨</event>", "<event/>", "event", "missing"),
        ("<category>Met</category>", "", "category", "missing"),
        ("<certainty>Likely</certainty>", "", "certainty", "missing"),
        ("<areaDesc>上海市</areaDesc>", "", "areaDesc", "missing"),
        ("<status>Actual</status>", "<status>Actual</status><status/>", "status", "twice"),
        ("<event>", "<headline>a</headline><headline>b</headline><event>", "headline", "twice"),
        ("<status>Actual", "<status>Real", "status", "Exercise, System"),
        ("<msgType>Alert", "<msgType>Notice", "msgType", "Update, Cancel"),
        ("<scope>Public", "<scope>All", "scope", "Restricted"),
        ("<category>Met", "<category>", "category", "cannot be ``"),
        ("<urgency>Immediate", "<urgency>now", "urgency", "Future"),
        ("<severity>Extreme", "<severity>Red", "severity", "Extreme, Severe"),
        ("<certainty>Likely", "<certainty>Very Likely", "certainty", "Observed"),
        ("<identifier>i", "<identifier>i j", "identifier", "no blanks"),
        ("<identifier>i", "<identifier>i&lt;j", "identifier", "no blanks"),
        ("<sender>s@", "<sender>s,@", "sender", "no blanks"),
        ("<sender>s@", "<sender>s&amp;@", "sender", "no blanks"),
        ("15:30:00+08:00", "15:30:00", "sent", "no time"),
        ("T15:30:00+08:00", " 15:30:00+08:00", "sent", "no time"),
        ("<msgType>Alert", "<msgType>Update", "references", "<references>"),
        ("<msgType>Alert", "<references/><msgType>Cancel", "references", "<references>"),
        ("<msgType>Alert", "<references>a,b</references><msgType>Cancel", "references", "no reference"),
        ("<msgType>Alert", "<references>a,b,2026-12-01</references><msgType>Cancel", "references", "no time"),
        ("<event>暴雨", "<event>暴雨<value>1</value>", "event", "holds text"),
        ("<info>", "<info>雨", "info", "holds elements"),
        ("<info>", "<area><areaDesc>x</areaDesc></area><info>", "area", "<alert> has no <area>"),
        ("<areaDesc>", "<geocode><valueName>x</valueName></geocode><areaDesc>", "value", "missing"),
        ("<areaDesc>", "<geocode><value>x</value></geocode><areaDesc>", "valueName", "missing"),
        ("<event>", "<effective>soon</effective><event>", "effective", "no time"),
    ] {
        assert!(good.contains(from), "{from}");
        let (named, words) = impossible(&good.replacen(from, to, 1));
        assert_eq!(named, Some(field), "{to}: {words}");
        assert!(words.contains(said), "{to}: {words}");
    }
    let (field, words) = impossible(&good.replace("<info>", "<weather/><info>"));
    assert_eq!((field, words.as_str()), (None, "line 1: CAP 1.2 has no <weather>"));
    let many = |n: usize| document(&format!("{HEAD}{KIND}{}", format!("<info>{INFO}</info>").repeat(n)));
    assert!(read(many(MOST_INFOS).as_bytes()).is_ok());
    assert_eq!(impossible(&many(MOST_INFOS + 1)).0, Some("info"));
    let areas = with_info(&"<area><areaDesc>x</areaDesc></area>".repeat(MOST_OF_A_KIND + 1));
    assert_eq!(impossible(&areas).0, Some("area"));
}

#[test]
fn references_are_read_in_their_order() {
    let text = document(&format!(
        "{HEAD}<status>Actual</status><msgType>Cancel</msgType><scope>Public</scope>\
         <references>a@b,1,2026-12-01T15:30:00+08:00\n a@b,2,2026-12-01T10:00:00-00:00</references>"
    ));
    let alert = read(text.as_bytes()).unwrap();
    let named: Vec<_> = alert.references.iter().map(|r| (r.sender.as_str(), r.identifier.as_str())).collect();
    assert_eq!(named, [("a@b", "1"), ("a@b", "2")]);
    assert_eq!(alert.references[1].sent, time("2026-12-01T18:00:00+08:00").unwrap());
}

#[test]
fn a_time_has_its_offset() {
    let half_past = "2026-12-01T07:30:00Z".parse::<Time>().unwrap();
    for good in [
        "2026-12-01T15:30:00+08:00",
        "2026-12-01T07:30:00-00:00",
        "2026-12-01T07:30:00+00:00",
        "2026-12-01T07:30:00Z",
        "2026-12-01T07:30:00.000Z",
        "2026-11-30T17:30:00-14:00",
    ] {
        assert_eq!(time(good), Some(half_past), "{good}");
    }
    for bad in [
        "",
        "2026-12-01",
        "2026-12-01T15:30:00",
        "2026-12-01 15:30:00+08:00",
        "2026-12-01t15:30:00+08:00",
        "2026-12-01T15:30:00z",
        "2026-12-01T15:30+08:00",
        "2026-12-01T15:30:60+08:00",
        "2026-12-01T24:00:01+08:00",
        "2026-02-30T15:30:00+08:00",
        "2026-12-01T15:30:00+15:00",
        "2026-12-01T15:30:00\u{2212}08:00",
        "2026-12-01T15:30:00+0800",
        "+2026-12-01T15:30:00+08:00",
        "1969-12-01T15:30:00+08:00",
        "9999-12-31T23:59:59-08:00",
        "20261201T153000+08:00",
        "２０２６-12-01T15:30:00+08:00",
    ] {
        assert_eq!(time(bad), None, "{bad}");
    }
}

#[test]
fn what_is_written_is_escaped_and_in_the_standards_order() {
    let alert = read(with_info("<description>a &lt; b &amp; c ]]&gt; &#13; 雨</description>").as_bytes()).unwrap();
    let text = String::from_utf8(write(&alert)).unwrap();
    assert!(text.contains("<description>a &lt; b &amp; c ]]&gt; &#13; 雨</description>"), "{text}");
    assert!(text.contains("<sent>2026-12-01T07:30:00-00:00</sent>"), "{text}");
    let order =
        ["<identifier>", "<sender>", "<sent>", "<status>", "<msgType>", "<scope>", "<info>", "<category>", "<event>"];
    let places: Vec<_> = order.iter().map(|name| text.find(name).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    let forbidden = Alert { note: Some("a\u{0}b".to_owned()), ..alert };
    assert_eq!(read(&write(&forbidden)).unwrap().note.as_deref(), Some("a\u{fffd}b"));
}

/// Any text as it is after reading: of characters XML allows, trimmed, and not empty.
fn words_() -> impl Strategy<Value = String> {
    "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\u{fffe}\u{ffff}]{1,20}".prop_filter_map("blank", |text| {
        let text = text.trim().to_owned();
        (!text.is_empty()).then_some(text)
    })
}

fn times() -> impl Strategy<Value = Time> {
    prop_oneof![
        (0i64..4_102_444_800).prop_map(|s| crate::clock::from_micros(s * 1_000_000)),
        (0i64..4_102_444_800_000_000).prop_map(crate::clock::from_micros),
    ]
}

fn pairs() -> impl Strategy<Value = Vec<Named>> {
    proptest::collection::vec((words_(), prop_oneof![Just(String::new()), words_()]), 0..3)
}

fn one<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

prop_compose! {
    fn areas()(desc in words_(), geocodes in pairs(), polygons in proptest::collection::vec(words_(), 0..2),
               circles in proptest::collection::vec(words_(), 0..2)) -> Area {
        Area { desc, geocodes, polygons, circles }
    }
}

prop_compose! {
    fn infos()(
        category in proptest::collection::vec(one(Category::ALL), 1..3),
        response in proptest::collection::vec(one(Response::ALL), 0..3),
        scale in (one(Urgency::ALL), one(Severity::ALL), one(Certainty::ALL)),
        event in words_(),
        texts in proptest::collection::vec(proptest::option::of(words_()), 7),
        ends in proptest::collection::vec(proptest::option::of(times()), 3),
        named in (pairs(), pairs()),
        areas in proptest::collection::vec(areas(), 0..3),
    ) -> Info {
        let text = |n: usize| texts[n].clone();
        Info {
            language: text(0), category, event, response,
            urgency: scale.0, severity: scale.1, certainty: scale.2,
            event_codes: named.0, effective: ends[0], onset: ends[1], expires: ends[2],
            sender_name: text(1), headline: text(2), description: text(3), instruction: text(4), web: text(5),
            contact: text(6), parameters: named.1, areas,
        }
    }
}

prop_compose! {
    fn alerts()(
        names in ("[^\\s,<&\\p{C}]{1,20}", "[!-~&&[^,<&]]{1,40}"),
        sent in times(),
        status in one(Status::ALL), kind in one(MsgType::ALL), scope in one(Scope::ALL),
        texts in (proptest::option::of(words_()), proptest::option::of(words_())),
        others in proptest::collection::vec(("[a-z@.]{1,9}", "[a-zA-Z0-9_]{1,30}", times()), 1..3),
        infos in proptest::collection::vec(infos(), 0..3),
    ) -> Alert {
        let others = others.into_iter().map(|(sender, identifier, sent)| Reference { sender, identifier, sent });
        Alert {
            identifier: names.0, sender: names.1, sent, status, kind, source: texts.0, scope, note: texts.1,
            references: others.collect(), infos,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_written_is_read_as_it_was(alert in alerts()) {
        prop_assume!(is_name(&alert.identifier));
        let written = write(&alert);
        let read = read(&written).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
        prop_assert_eq!(read, alert);
    }
}
