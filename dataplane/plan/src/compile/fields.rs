//! Changes to fields, and what may stand in names, values and hosts that are written into messages.

use super::Work;
use super::rejection::Place;
use crate::Edits;
use api::envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use api::envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use api::envoy_types::pb::envoy::config::route::v3::VirtualHost;

/// Fields that frame, route or belong to one connection: an edit of them would make two readers of one message differ.
const UNTOUCHABLE: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The edits that one level of a route configuration makes.
#[derive(Clone, Debug, Default)]
pub(super) struct EditSteps {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
}

impl EditSteps {
    pub(super) fn of_host(host: &VirtualHost) -> EditSteps {
        EditSteps {
            request_add: host.request_headers_to_add.clone(),
            request_remove: host.request_headers_to_remove.clone(),
            response_add: host.response_headers_to_add.clone(),
            response_remove: host.response_headers_to_remove.clone(),
        }
    }
}

/// Adds one level's steps to `edits`: removals first, then what is written, as Envoy's `HeaderParser` does.
pub(super) fn edit(
    work: &mut Work<'_>,
    place: &Place,
    add: &[HeaderValueOption],
    remove: &[String],
    edits: &mut Edits,
) {
    for text in remove {
        if let Some(name) = editable(work, place, text) {
            edits.then_remove(&name);
        }
    }
    for option in add {
        let Some(HeaderValue { key, value, raw_value }) = &option.header else {
            work.refuse(place, "must have a header");
            continue;
        };
        let Some(name) = editable(work, place, key) else {
            continue;
        };
        let place = place.field(&name);
        let Some(value) = self::value(work, &place, value, raw_value) else {
            continue;
        };
        if value.is_empty() && !option.keep_empty_value {
            continue;
        }
        match HeaderAppendAction::try_from(option.append_action) {
            _ if option_is_older(option) => work.refuse(&place.field("append"), "is not supported, append_action is"),
            Ok(HeaderAppendAction::AppendIfExistsOrAdd) => edits.then_add(&name, &value),
            Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => edits.then_set(&name, &value),
            Ok(other) => {
                work.refuse(&place.field("append_action"), format!("{} is not supported", other.as_str_name()));
            }
            Err(_) => work.refuse(&place.field("append_action"), "is not known"),
        }
    }
}

#[allow(deprecated, reason = "a field that is still sent must not be overlooked")]
fn option_is_older(option: &HeaderValueOption) -> bool {
    option.append.is_some()
}

/// A field name that may be edited, in lower case.
fn editable(work: &mut Work<'_>, place: &Place, text: &str) -> Option<Box<str>> {
    let name = name(work, place, text)?;
    if UNTOUCHABLE.contains(&&*name) {
        work.refuse(place, format!("{name} cannot be changed: it frames or routes the message"));
        return None;
    }
    Some(name)
}

/// A field name in lower case: a token (RFC 9110 section 5.6.2).
pub(super) fn name(work: &mut Work<'_>, place: &Place, text: &str) -> Option<Box<str>> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(token) {
        work.refuse(place, format!("{text:?} is not a field name"));
        return None;
    }
    Some(text.to_ascii_lowercase().into())
}

/// A value to write. `%%` stands for `%`; other formats would need values that are not known here.
fn value(work: &mut Work<'_>, place: &Place, text: &str, raw: &[u8]) -> Option<Box<[u8]>> {
    let format = match raw.is_empty() {
        true => text.as_bytes(),
        false => raw,
    };
    let mut value = Vec::with_capacity(format.len());
    let mut bytes = format.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'%' && bytes.next() != Some(&b'%') {
            work.refuse(place, "`%` formats are not supported; `%%` stands for `%`");
            return None;
        }
        value.push(byte);
    }
    // RFC 9110 section 5.5: control characters but the tab are invalid, white space around a value is not part of it.
    let visible = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !value.iter().all(visible) || value.trim_ascii().len() != value.len() {
        work.refuse(place, "must not hold control characters, nor begin or end with a space");
        return None;
    }
    Some(value.into())
}

/// A host to write into `Host` or a URL: visible ASCII without what ends an authority (RFC 3986 section 3.2).
pub(super) fn host(work: &mut Work<'_>, place: &Place, text: &str) -> Option<Box<str>> {
    let byte = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\\"<>^`{|}".contains(&byte);
    if text.is_empty() || !text.bytes().all(byte) {
        work.refuse(place, format!("{text:?} is not a host"));
        return None;
    }
    Some(text.into())
}
