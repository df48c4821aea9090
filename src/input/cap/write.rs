//! An `Alert` → CAP 1.2, its elements in the standard's order and everything escaped.

use chrono::{SecondsFormat, Timelike as _};

use super::NAMESPACE;
use super::tree::is_xml;
use crate::core::Time;
use crate::core::alert::{Alert, Area, Info, Named, Reference};

/// Writes one alert; what `read` gave is read again as it was.
pub fn write(alert: &Alert) -> Vec<u8> {
    let mut page = Page(String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"));
    page.0 += &format!("<alert xmlns=\"{NAMESPACE}\">\n");
    page.leaf("identifier", &alert.identifier);
    page.leaf("sender", &alert.sender);
    page.leaf("sent", &time(alert.sent));
    page.leaf("status", alert.status.as_str());
    page.leaf("msgType", alert.kind.as_str());
    page.optional("source", alert.source.as_deref());
    page.leaf("scope", alert.scope.as_str());
    page.optional("note", alert.note.as_deref());
    if !alert.references.is_empty() {
        page.leaf("references", &alert.references.iter().map(reference).collect::<Vec<_>>().join(" "));
    }
    alert.infos.iter().for_each(|info| page.info(info));
    page.0 += "</alert>\n";
    page.0.into_bytes()
}

struct Page(String);

impl Page {
    fn info(&mut self, info: &Info) {
        self.within("info", |page| {
            page.optional("language", info.language.as_deref());
            info.category.iter().for_each(|word| page.leaf("category", word.as_str()));
            page.leaf("event", &info.event);
            info.response.iter().for_each(|word| page.leaf("responseType", word.as_str()));
            page.leaf("urgency", info.urgency.as_str());
            page.leaf("severity", info.severity.as_str());
            page.leaf("certainty", info.certainty.as_str());
            info.event_codes.iter().for_each(|code| page.named("eventCode", code));
            for (name, at) in [("effective", info.effective), ("onset", info.onset), ("expires", info.expires)] {
                page.optional(name, at.map(time).as_deref());
            }
            page.optional("senderName", info.sender_name.as_deref());
            page.optional("headline", info.headline.as_deref());
            page.optional("description", info.description.as_deref());
            page.optional("instruction", info.instruction.as_deref());
            page.optional("web", info.web.as_deref());
            page.optional("contact", info.contact.as_deref());
            info.parameters.iter().for_each(|parameter| page.named("parameter", parameter));
            info.areas.iter().for_each(|area| page.area(area));
        });
    }

    fn area(&mut self, area: &Area) {
        self.within("area", |page| {
            page.leaf("areaDesc", &area.desc);
            area.polygons.iter().for_each(|polygon| page.leaf("polygon", polygon));
            area.circles.iter().for_each(|circle| page.leaf("circle", circle));
            area.geocodes.iter().for_each(|geocode| page.named("geocode", geocode));
        });
    }

    fn named(&mut self, element: &str, (name, value): &Named) {
        self.within(element, |page| {
            page.leaf("valueName", name);
            page.leaf("value", value);
        });
    }

    fn within(&mut self, element: &str, what: impl FnOnce(&mut Page)) {
        self.0 += &format!("<{element}>\n");
        what(self);
        self.0 += &format!("</{element}>\n");
    }

    fn optional(&mut self, element: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.leaf(element, text);
        }
    }

    fn leaf(&mut self, element: &str, text: &str) {
        self.0 += &format!("<{element}>");
        for c in text.chars() {
            match c {
                '&' => self.0 += "&amp;",
                '<' => self.0 += "&lt;",
                // Needed in `]]>` alone, and harmless elsewhere.
                '>' => self.0 += "&gt;",
                // As it stands it would be read as a line feed.
                '\r' => self.0 += "&#13;",
                c if is_xml(c) => self.0.push(c),
                _ => self.0.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.0 += &format!("</{element}>\n");
    }
}

fn reference(reference: &Reference) -> String {
    format!("{},{},{}", reference.sender, reference.identifier, time(reference.sent))
}

/// The standard writes UTC as `-00:00`, and has no fraction: one is written only where there is one.
fn time(at: Time) -> String {
    let form = if at.nanosecond() == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
    let text = at.to_rfc3339_opts(form, true);
    format!("{}-00:00", text.trim_end_matches('Z'))
}
