//! CAP 1.2 from outside: whole files read, written and read again; hostile ones refused at once (R41, input 71).
//!
//! `FABU_CITY` names the folder of a sample city, whose `cap/good` and `cap/bad` are read besides.

#[path = "cap/mutated.rs"]
mod mutated;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fabu::clock::Clock;
use fabu::core::alert::{Alert, MsgType, Scope, Status};
use fabu::core::announcement::Level;
use fabu::input::cap::{self, Refused};

const ALERT: &str = include_str!("cap/alert.xml");
const UPDATE: &str = include_str!("cap/update-two-languages.xml");
const CANCEL: &str = include_str!("cap/cancel.xml");
const EXERCISE: &str = include_str!("cap/exercise.xml");

/// A document about to be refused takes no longer, in a build without optimisation.
const AT_ONCE: Duration = Duration::from_millis(900);

fn good(text: &str) -> Alert {
    let alert = cap::read(text.as_bytes()).unwrap_or_else(|refused| panic!("{refused}\n{text}"));
    assert_eq!(cap::read(&cap::write(&alert)).unwrap(), alert, "what was read is written and read again");
    alert
}

fn refused(bytes: impl AsRef<[u8]>) -> Refused {
    let clock = Clock::real();
    let before = clock.mono().0;
    let refused = cap::read(bytes.as_ref()).unwrap_err();
    let took = clock.mono().0 - before;
    assert!(took < AT_ONCE, "{took:?}: {refused}");
    for words in [&refused.words.zh, &refused.words.en] {
        assert!(!words.is_empty() && words.chars().count() < 400, "{words}");
        assert!(!words.chars().any(char::is_control), "{words:?}");
    }
    refused
}

fn malformed(bytes: impl AsRef<[u8]>, said: &str) {
    let refused = refused(bytes);
    assert!(refused.malformed && refused.words.en.contains(said), "{refused}");
}

#[test]
fn an_alert_says_what_the_city_needs_of_it() {
    let alert = good(ALERT);
    let info = alert.chosen("zh-CN").unwrap();
    assert_eq!((info.event_code(), info.level()), (Some("11B17"), Ok(Some(Level::Orange))));
    assert_eq!((info.area_codes(), info.area_text()), (vec!["320111", "320102"], "江北新区、玄武区".to_owned()));
    assert_eq!(info.description.as_deref(), Some("江面能见度不足二百米，轮渡 <停航> 两小时以上。"));
    assert_eq!(alert.expires(), Some("2027-03-15T04:00:00Z".parse().unwrap()));
}

#[test]
fn an_update_is_read_in_the_citys_language_with_prefixes_signature_and_resources() {
    let alert = good(UPDATE);
    assert_eq!(alert.references, [good(ALERT).reference()]);
    let info = alert.chosen("zh-CN").unwrap();
    assert_eq!((info.headline.as_deref(), info.level()), (Some("大雾转为黄色，正在减弱"), Ok(Some(Level::Yellow))));
    assert_eq!((info.onset, info.area_codes()), (None, vec!["320100", "320111"]));
    assert_eq!(alert.chosen("en-GB").unwrap().headline.as_deref(), Some("Fog <yellow> & thinning"));
}

#[test]
fn a_cancel_needs_no_info_and_an_exercise_stays_one() {
    let cancel = good(CANCEL);
    assert_eq!((cancel.kind, cancel.references.len(), cancel.chosen("zh-CN")), (MsgType::Cancel, 2, None));
    assert_eq!(cancel.references[0], good(ALERT).reference());
    assert_eq!(cancel.references[1], good(UPDATE).reference(), "the same instant, written in two offsets");
    let exercise = good(EXERCISE);
    assert_eq!((exercise.status, exercise.scope), (Status::Exercise, Scope::Restricted));
    assert_eq!((exercise.infos[0].level(), exercise.expires()), (Ok(None), None));
}

#[test]
fn r41_71_entities_and_external_things_are_refused_and_not_touched() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "canary").unwrap();
    let (_, body) = ALERT.split_once("?>").unwrap();

    let mut laughs = "<!ENTITY a0 \"雨雨雨雨雨雨雨雨雨雨\">".to_owned();
    for n in 1..20 {
        laughs += &format!("<!ENTITY a{n} \"{}\">", format!("&a{};", n - 1).repeat(10));
    }
    let used = body.replace("大雾</event>", "&a19;</event>");
    malformed(format!("<!DOCTYPE alert [{laughs}]>{used}"), "a DTD is not allowed");
    malformed(used, "no entity `&a19;`");

    for target in [url.clone(), format!("file://{}", secret.display())] {
        let outside = body.replace("大雾</event>", "&x;</event>");
        malformed(format!("<!DOCTYPE alert [<!ENTITY x SYSTEM \"{target}\">]>{outside}"), "a DTD is not allowed");
        malformed(format!("<!DOCTYPE alert [<!ENTITY % x SYSTEM \"{target}\"> %x;]>{body}"), "a DTD is not allowed");
        malformed(format!("<!DOCTYPE alert SYSTEM \"{target}\">{body}"), "a DTD is not allowed");
        malformed(format!("<!doctype alert SYSTEM \"{target}\">{body}"), "a DTD is not allowed");
        malformed(format!("<?xml-model href=\"{target}\"?>{body}"), "processing instructions");
        malformed(body.replace("<event>", "<?xml-stylesheet href=\"x\"?><event>"), "processing instructions");
        good(&format!("<?xml-stylesheet type=\"text/xsl\" href=\"{target}\"?>{body}"));
        let include =
            format!("<xi:include xmlns:xi=\"http://www.w3.org/2001/XInclude\" href=\"{target}\" parse=\"text\"/>");
        for place in ["<event>", "<info>", "<senderName>"] {
            malformed(body.replace(place, &format!("{place}{include}")), "XInclude");
        }
        let signed = format!("<Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\">{include}</Signature></alert>");
        malformed(body.replace("</alert>", &signed), "XInclude");
    }
    // What may be there is read over, wherever it points.
    good(&UPDATE.replace("http://127.0.0.1:9/never-fetched", &url).replace("http://schema.example/CAP-v1.2.xsd", &url));
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "nobody called");
}

#[test]
fn r41_71_what_is_too_much_is_refused_at_once() {
    let (_, body) = ALERT.split_once("?>").unwrap();
    let attributes = |text: String| body.replace("<event>", &format!("<event {text}>"));
    let mebibyte = 1 << 20;
    let many: String = (0..60_000).map(|n| format!("a{n}=\"1\" ")).collect();
    malformed(attributes(many), "attributes");
    malformed(attributes(format!("a=\"{}\"", "x".repeat(mebibyte - 10_000))), "attributes");
    malformed(attributes("a=\"1\" ".repeat(100_000)), "attributes");
    let spaces: String = (0..40_000).map(|n| format!("xmlns:a{n}=\"u\" ")).collect();
    malformed(attributes(spaces), "namespace");
    malformed(attributes((0..17).map(|n| format!("a{n}=\"\" ")).collect()), "more than 16");
    malformed("x".repeat(mebibyte + 1), "the limit is 1 MiB");
    malformed(" ".repeat(mebibyte), "no alert");

    let namespace = "xmlns=\"urn:oasis:names:tc:emergency:cap:1.2\"";
    let open = |name: &str| format!("<alert {namespace}>{}", format!("<{name}>").repeat(100_000));
    malformed(open("area"), "deeper than 32");
    malformed(open("info"), "deeper than 32");
    let signature = "<Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\">";
    malformed(format!("<alert {namespace}>{signature}{}", "<Object>".repeat(100_000)), "deeper than 32");
    malformed("<a>".repeat(100_000), "no namespace");

    let areas = |many: usize| body.replace("</info>", &format!("{}</info>", "<area/>".repeat(many)));
    malformed(areas(100_000), "more than 20000 elements");
    let refused = refused(areas(15_000));
    assert!(!refused.malformed && refused.field == Some("area"), "{refused}");
    let after = |what: &str| body.replace("</alert>", &format!("{}</alert>", what.repeat(100_000)));
    malformed(after("<code/>"), "20000");
    good(&after("<!-- -->"));
    let text = "&#38;".repeat(200_000);
    let alert = cap::read(body.replace("大雾</event>", &format!("{text}</event>")).as_bytes()).unwrap();
    assert_eq!(alert.infos[0].event.len(), 200_000);
}

#[test]
fn r41_71_other_encodings_are_refused_by_name() {
    let (_, body) = ALERT.split_once("?>").unwrap();
    for name in ["UTF-7", "GBK", "GB18030", "ISO-8859-1", "UTF-16", "x\u{202e}"] {
        let shown = if name.starts_with('x') { "x\\u{202e}" } else { name };
        malformed(format!("<?xml version=\"1.0\" encoding=\"{name}\"?>{body}"), &format!("the encoding is {shown}"));
    }
    malformed("<?xml version=\"1.0\" encoding=\"UTF-7\"?>+ADw-alert+AD4-", "UTF-7");
    let wide: Vec<u8> = ALERT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    malformed([b"\xff\xfe", &wide[..]].concat(), "UTF-16");
    malformed(b"<?xml version=\"1.0\" encoding=\"gb2312\"?><alert>\xb4\xf3\xce\xed</alert>", "gb2312");
}

/// What centres wrap their alerts in, and what says nothing of them.
#[test]
fn valid_wrapping_is_read_over() {
    let (_, body) = ALERT.split_once("?>").unwrap();
    for name in ["UTF8", "us-ascii", "US-ASCII", "utf-8"] {
        assert_eq!(good(&format!("<?xml version=\"1.0\" encoding=\"{name}\"?>{body}")), good(ALERT));
    }
    let signed = "<Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\"><Object>\
        <q:QualifyingProperties xmlns:q=\"http://uri.etsi.org/01903/v1.3.2#\"><q:SigningTime>x</q:SigningTime>\
        <plain xmlns=\"\"/></q:QualifyingProperties></Object></Signature></alert>";
    assert_eq!(good(&body.replace("</alert>", signed)), good(ALERT));
    malformed(body.replace("<event>", "<q:x xmlns:q=\"http://uri.etsi.org/01903/v1.3.2#\"/><event>"), "not CAP 1.2's");
    let ended = body.replace("2027-03-15T12:00:00+08:00", "2027-03-15T24:00:00+08:00");
    assert_eq!(good(&ended).expires(), Some("2027-03-15T16:00:00Z".parse().unwrap()));
    let refused = refused(body.replace("2027-03-15T12:00:00+08:00", "2027-03-15T24:00:01+08:00"));
    assert_eq!(refused.field, Some("expires"));
    let unnamed = body.replace("<valueName>colour</valueName>", "<valueName/>");
    assert_eq!(good(&unnamed).infos[0].parameters, [(String::new(), "orange".to_owned())]);
}

#[test]
fn r41_the_reader_can_open_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/input");
    for file in ["cap.rs", "cap/tree.rs", "cap/write.rs"] {
        let code = std::fs::read_to_string(folder.join(file)).unwrap();
        for word in ["fs", "net", "File", "reqwest", "tokio", "process", "from_file"] {
            let found = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word);
            assert!(!found, "{file} has {word}");
        }
    }
}

#[test]
fn the_citys_alerts_are_read_and_its_bad_ones_refused() {
    let Some(city) = std::env::var_os("FABU_CITY").map(PathBuf::from) else { return };
    let files = |folder: &str| {
        let mut files: Vec<_> =
            std::fs::read_dir(city.join("cap").join(folder)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        files
    };
    let all = files("good");
    assert_eq!(all.len(), 8);
    let levels: Vec<_> = all
        .iter()
        .map(|file| {
            let alert = good(&std::fs::read_to_string(file).unwrap());
            let info = alert.chosen("zh-CN").unwrap();
            assert!(info.event_code().unwrap().starts_with("11B"), "{}", file.display());
            assert!(!info.area_codes().is_empty() && !info.area_text().is_empty());
            info.level().unwrap().unwrap()
        })
        .collect();
    use Level::{Blue, Orange, Red, Yellow};
    assert_eq!(levels, [Red, Orange, Orange, Red, Blue, Blue, Orange, Yellow]);

    let verdicts: Vec<_> = files("bad")
        .iter()
        .map(|file| cap::read(&std::fs::read(file).unwrap()).map(|_| ()).map_err(|r| (r.malformed, r.field)))
        .collect();
    let impossible = |field| Err((false, Some(field)));
    let malformed = Err((true, None));
    let expected = [
        impossible("identifier"),
        impossible("status"),
        malformed,
        impossible("msgType"),
        Ok(()), // Only expired, which is for the daemon to see.
        impossible("references"),
        malformed,
        malformed,
    ];
    assert_eq!(verdicts, expected);
}
