use super::*;

fn info(language: Option<&str>) -> Info {
    Info {
        language: language.map(str::to_owned),
        category: vec![Category::Met],
        event: "暴雨".to_owned(),
        response: Vec::new(),
        urgency: Urgency::Immediate,
        severity: Severity::Unknown,
        certainty: Certainty::Likely,
        event_codes: Vec::new(),
        effective: None,
        onset: None,
        expires: None,
        sender_name: None,
        headline: None,
        description: None,
        instruction: None,
        web: None,
        contact: None,
        parameters: Vec::new(),
        areas: Vec::new(),
    }
}

fn alert(infos: Vec<Info>) -> Alert {
    Alert {
        identifier: "a".to_owned(),
        sender: "b".to_owned(),
        sent: at(0),
        status: Status::Actual,
        kind: MsgType::Alert,
        source: None,
        scope: Scope::Public,
        note: None,
        references: Vec::new(),
        infos,
    }
}

fn at(second: i64) -> Time {
    Time::from_timestamp(second, 0).unwrap()
}

fn named(pairs: &[(&str, &str)]) -> Vec<Named> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_citys_language_is_chosen_and_else_the_first() {
    let tags = |tags: &[Option<&str>], wanted: &str| {
        let alert = alert(tags.iter().map(|tag| info(*tag)).collect());
        alert.chosen(wanted).unwrap().language.clone()
    };
    let zh = Some("zh-CN".to_owned());
    assert_eq!(tags(&[Some("en"), Some("zh-CN")], "zh-CN"), zh);
    assert_eq!(tags(&[Some("en"), Some("zh-CN")], "zh"), zh);
    assert_eq!(tags(&[Some("zh"), Some("zh-CN")], "zh-CN"), zh);
    assert_eq!(tags(&[Some("en"), Some("ZH")], "zh-CN"), Some("ZH".to_owned()));
    assert_eq!(tags(&[Some("zho"), Some("zh-TW")], "zh-CN"), Some("zho".to_owned()));
    for written in ["zh_CN", "zho", "chi", "cmn-Hans-CN", "ZH-hans"] {
        assert_eq!(tags(&[Some("en"), Some(written)], "zh-CN"), Some(written.to_owned()));
    }
    assert_eq!(tags(&[None, Some("zh-CN")], "en"), None, "without a tag it is American English");
    assert_eq!(tags(&[Some("fr"), Some("de")], "zh-CN"), Some("fr".to_owned()));
    assert_eq!(alert(Vec::new()).chosen("zh-CN"), None);
}

#[test]
fn it_ends_with_the_last_of_its_infos() {
    let with = |ends: &[Option<i64>]| {
        let infos = ends.iter().map(|end| Info { expires: end.map(at), ..info(None) });
        alert(infos.collect()).expires()
    };
    assert_eq!(with(&[Some(5), Some(9), Some(7)]), Some(at(9)));
    assert_eq!(with(&[Some(5), None]), None);
    assert_eq!(with(&[]), None);
}

#[test]
fn the_colour_is_the_parameters_and_else_the_severitys() {
    let level = |pairs: &[(&str, &str)], severity| {
        let info = Info { parameters: named(pairs), severity, ..info(None) };
        info.level().map_err(str::to_owned)
    };
    for (name, value, expected) in [
        ("colour", "red", Level::Red),
        ("Color", "RED", Level::Red),
        ("ALERT_COLOR", "Orange", Level::Orange),
        ("预警颜色", "黄色", Level::Yellow),
        ("预警颜色", "蓝", Level::Blue),
        ("预警颜色", "橙色预警", Level::Orange),
        ("colour", "Red Warning", Level::Red),
        ("awareness_level", "2; yellow; Moderate", Level::Yellow),
        ("预警级别", "Ⅱ级", Level::Orange),
        ("预警等级", "一级（红色）", Level::Red),
    ] {
        assert_eq!(level(&[(name, value)], Severity::Minor), Ok(Some(expected)), "{name} {value}");
    }
    let gravest = level(&[("colour", "blue"), ("颜色", "红")], Severity::Minor);
    assert_eq!(gravest, Ok(Some(Level::Red)), "the gravest");
    assert_eq!(level(&[("collar", "red"), ("alert_level", "3")], Severity::Minor), Ok(Some(Level::Blue)));
    for (name, value) in
        [("colour", "purple"), ("colour", "#f00"), ("颜色", "由红色转橙色"), ("awareness_level", "1; green; Minor")]
    {
        assert_eq!(level(&[(name, value)], Severity::Minor), Err(value.to_owned()), "a lower level is no guess");
    }
    assert_eq!(level(&[], Severity::Extreme), Ok(Some(Level::Red)));
    assert_eq!(level(&[], Severity::Severe), Ok(Some(Level::Orange)));
    assert_eq!(level(&[], Severity::Moderate), Ok(Some(Level::Yellow)));
    assert_eq!(level(&[], Severity::Unknown), Ok(None));
}

#[test]
fn a_headline_that_calls_it_graver_than_its_severity_is_no_lower_warning() {
    let level = |headline: &str, severity| {
        let info = Info { headline: Some(headline.to_owned()), severity, ..info(None) };
        info.level().map_err(str::to_owned)
    };
    for headline in ["暴雨红色预警信号", "发布高温红色警报", "RED WARNING for rain"] {
        assert_eq!(level(headline, Severity::Severe), Err(headline.to_owned()));
        assert_eq!(level(headline, Severity::Unknown), Err(headline.to_owned()));
        assert_eq!(level(headline, Severity::Extreme), Ok(Some(Level::Red)));
    }
    assert_eq!(level("红色预警降为橙色预警", Severity::Severe), Ok(Some(Level::Orange)));
    assert_eq!(level("暴雨蓝色预警", Severity::Severe), Ok(Some(Level::Orange)), "the graver of both");
    assert_eq!(level("红色旅游节", Severity::Minor), Ok(Some(Level::Blue)));
}

#[test]
fn what_ends_an_alert_asks_nothing_of_people() {
    let ends = |response: &[Response]| Info { response: response.to_vec(), ..info(None) }.ends();
    assert_eq!(ends(&[Response::AllClear]), Ok(true));
    assert_eq!(ends(&[Response::None, Response::AllClear]), Ok(true));
    assert_eq!(ends(&[Response::AllClear, Response::Evacuate]), Err(Response::Evacuate));
    assert_eq!(ends(&[Response::Monitor]), Ok(false));
}

#[test]
fn codes_are_found_by_the_name_of_their_standard() {
    let code =
        |pairs: &[(&str, &str)]| Info { event_codes: named(pairs), ..info(None) }.event_code().map(str::to_owned);
    assert_eq!(code(&[("SAME", "FFW"), ("GB/T 35965.1", "11B03")]).as_deref(), Some("11B03"));
    assert_eq!(code(&[("SAME", "FFW"), ("gb/t35965.1-2018", "11B03")]).as_deref(), Some("11B03"));
    assert_eq!(code(&[("SAME", "FFW"), ("OET", "x")]).as_deref(), Some("FFW"));
    assert_eq!(code(&[]), None);

    let area = |desc: &str, pairs: &[(&str, &str)]| Area {
        desc: desc.to_owned(),
        geocodes: named(pairs),
        polygons: Vec::new(),
        circles: Vec::new(),
    };
    let listed = Info {
        areas: vec![area("各区", &[("GB2260", "310115、310104\n310101000000；310115001000")])],
        ..info(None)
    };
    assert_eq!(listed.area_codes(), ["310115", "310104", "310101", "310115001"]);
    let areas = vec![
        area("浦东新区", &[("行政区划代码", "310115"), ("UN/LOCODE", "CNSHA")]),
        area("徐汇区", &[("GB/T 2260-2007", "310104000000,310115"), ("GB/T 2260", "310115001")]),
    ];
    let info = Info { areas, ..info(None) };
    assert_eq!(info.area_codes(), ["310115", "310104", "310115001"]);
    assert_eq!(info.area_text(), "浦东新区、徐汇区");
}

#[test]
fn a_name_could_stand_in_a_reference() {
    for good in ["shanghai@weather.example", "31000041600000_20261201153000_0", "urn:oid:2.49.0", "上海"] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "a b", "a,b", "a<b", "a&b", "a\u{200b}b", "a\nb", &"x".repeat(257)] {
        assert!(!is_name(bad), "{bad:?}");
    }
}
