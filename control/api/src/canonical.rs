//! One encoding for equal resources. Protobuf leaves the entries of a map in any order, and prost encodes a `HashMap` as
//! it iterates: here the entries are sorted, so that a resource's version, a hash of its bytes, is the same on every daemon
//! and after every restart. Messages inside an `Any` are bytes here: whoever packs them keeps maps to one entry, or merges.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// Where a message has maps: by the numbers of its fields.
pub(crate) struct Shape {
    maps: &'static [u32],
    /// Fields that are messages with maps further down. A map's entries are messages too: key 1, value 2.
    inner: &'static [(u32, &'static Shape)],
}

/// google.protobuf.Struct
static STRUCT: Shape = Shape { maps: &[1], inner: &[(1, &Shape { maps: &[], inner: &[(2, &VALUE)] })] };
/// google.protobuf.Value
static VALUE: Shape = Shape { maps: &[], inner: &[(5, &STRUCT), (6, &Shape { maps: &[], inner: &[(1, &VALUE)] })] };
/// envoy.config.core.v3.Metadata
static METADATA: Shape = Shape { maps: &[1, 2], inner: &[(1, &Shape { maps: &[], inner: &[(2, &STRUCT)] })] };

pub(crate) static LISTENER: Shape = Shape { maps: &[], inner: &[(6, &METADATA)] };
pub(crate) static ROUTES: Shape = Shape { maps: &[16], inner: &[(2, &HOST), (17, &METADATA)] };
static HOST: Shape = Shape { maps: &[15], inner: &[(3, &ROUTE), (24, &METADATA)] };
static ROUTE: Shape = Shape { maps: &[13], inner: &[(2, &FORWARD), (4, &METADATA)] };
static FORWARD: Shape = Shape { maps: &[], inner: &[(3, &WEIGHTED), (4, &METADATA)] };
static WEIGHTED: Shape = Shape { maps: &[], inner: &[(1, &Shape { maps: &[10], inner: &[(3, &METADATA)] })] };
pub(crate) static CLUSTER: Shape = Shape { maps: &[36], inner: &[(25, &METADATA), (33, &ENDPOINTS)] };
pub(crate) static ENDPOINTS: Shape = Shape { maps: &[5], inner: &[(2, &LOCALITY)] };
static LOCALITY: Shape =
    Shape { maps: &[], inner: &[(2, &Shape { maps: &[], inner: &[(3, &METADATA)] }), (9, &METADATA)] };
pub(crate) static SECRET: Shape = Shape { maps: &[], inner: &[] };

/// The bytes of a message with the entries of its maps sorted; what is no message is left as it is.
pub(crate) fn sorted(bytes: &[u8], shape: &Shape) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    match write(bytes, shape, &mut out) {
        Some(()) => out,
        None => bytes.to_vec(),
    }
}

fn write(mut rest: &[u8], shape: &Shape, out: &mut Vec<u8>) -> Option<()> {
    if shape.maps.is_empty() && shape.inner.is_empty() {
        out.extend(rest);
        return Some(());
    }
    let mut run: Vec<Vec<u8>> = Vec::new();
    let mut of = 0;
    while !rest.is_empty() {
        let (tag, record) = record(&mut rest, shape)?;
        if tag != of {
            flush(&mut run, out);
        }
        of = tag;
        if shape.maps.contains(&tag) { run.push(record) } else { out.extend(record) }
    }
    flush(&mut run, out);
    Some(())
}

/// The entries of one map stand together.
fn flush(run: &mut Vec<Vec<u8>>, out: &mut Vec<u8>) {
    run.sort();
    run.drain(..).for_each(|record| out.extend(record));
}

/// The next field and its number, maps inside it sorted.
fn record(rest: &mut &[u8], shape: &Shape) -> Option<(u32, Vec<u8>)> {
    let whole = *rest;
    let (tag, wire_type) = decode_key(rest).ok()?;
    let length = match wire_type {
        WireType::Varint => {
            decode_varint(rest).ok()?;
            0
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => usize::try_from(decode_varint(rest).ok()?).ok()?,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let (value, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    let inner = shape.inner.iter().find(|(inner, _)| *inner == tag && wire_type == WireType::LengthDelimited);
    let Some((_, inner)) = inner else {
        return Some((tag, whole[..whole.len() - behind.len()].to_vec()));
    };
    let mut content = Vec::with_capacity(length);
    write(value, inner, &mut content)?;
    let mut record = Vec::with_capacity(length + 10);
    encode_key(tag, wire_type, &mut record);
    encode_varint(content.len() as u64, &mut record);
    record.extend(content);
    Some((tag, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::{
        core::v3::Metadata,
        listener::v3::Listener,
        route::v3::{Route, RouteConfiguration, VirtualHost},
    };
    use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
    use prost::Message;
    use std::collections::{BTreeSet, HashMap};

    /// A struct of many fields, the last a struct of as many.
    fn structure(depth: usize) -> Struct {
        let number = |n: u32| Value { kind: Some(Kind::NumberValue(f64::from(n))) };
        let mut fields: HashMap<String, Value> = (0..20).map(|n| (n.to_string(), number(n))).collect();
        if depth > 0 {
            fields.insert("inner".to_owned(), Value { kind: Some(Kind::StructValue(structure(depth - 1))) });
        }
        Struct { fields }
    }

    fn listener() -> Listener {
        let filter_metadata = (0..20).map(|n| (n.to_string(), structure(2))).collect();
        let metadata = Metadata { filter_metadata, ..Metadata::default() };
        Listener { name: "a".to_owned(), metadata: Some(metadata), ..Listener::default() }
    }

    fn routes() -> RouteConfiguration {
        let configs = || (0..20).map(|n| (n.to_string(), Any { type_url: n.to_string(), value: vec![n] })).collect();
        let route = || Route { name: "r".to_owned(), typed_per_filter_config: configs(), ..Route::default() };
        let host =
            VirtualHost { routes: vec![route(), route()], typed_per_filter_config: configs(), ..Default::default() };
        RouteConfiguration { name: "a".to_owned(), virtual_hosts: vec![host.clone(), host], ..Default::default() }
    }

    #[test]
    fn equal_messages_have_one_encoding_and_keep_their_meaning() {
        // Each is made anew: no two maps of 20 entries iterate alike.
        let raw: BTreeSet<Vec<u8>> = (0..20).map(|_| listener().encode_to_vec()).collect();
        assert!(raw.len() > 1, "prost sorts by itself");
        let encodings: BTreeSet<Vec<u8>> = raw.iter().map(|bytes| sorted(bytes, &LISTENER)).collect();
        assert_eq!(encodings.len(), 1);
        for bytes in &encodings {
            assert_eq!(Listener::decode(bytes.as_slice()), Ok(listener()));
        }
        let encodings: BTreeSet<Vec<u8>> = (0..20).map(|_| sorted(&routes().encode_to_vec(), &ROUTES)).collect();
        assert_eq!(encodings.len(), 1);
        for bytes in &encodings {
            assert_eq!(RouteConfiguration::decode(bytes.as_slice()), Ok(routes()));
        }
    }

    #[test]
    fn what_is_no_message_is_left_alone() {
        for bytes in [&b"\xff"[..], b"\x0a\x05a", b"\x0b\x0c", b"\x32\x02\x0a\x09"] {
            assert_eq!(sorted(bytes, &LISTENER), bytes);
        }
    }
}
