//! By section of `proxy-protocol.txt`, whole and split at every byte; what is written is read again.

use super::*;
use proptest::prelude::*;

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

/// The header of version 2 with this byte of command, byte of family, and block behind the length.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    [V2, &[command, family], &(block.len() as u16).to_be_bytes(), block].concat()
}

/// 192.0.2.1:56324 to 192.0.2.2:443.
const BLOCK_V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 1, 0xbb];

fn block_v6() -> Vec<u8> {
    let (source, destination): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    [&source.octets()[..], &destination.octets(), &[0xdc, 0x04, 1, 0xbb]].concat()
}

/// The verdict of all of it; every part needs more or has the same verdict, and so has what has bytes behind it.
fn verdict(bytes: &[u8]) -> Result<Option<Header>, Reject> {
    let whole = read(bytes);
    for end in 0..bytes.len() {
        let part = read(&bytes[..end]);
        assert!(part == Ok(None) || part == whole, "{end} bytes: {part:?}, whole: {whole:?}");
        assert!(end + 1 < bytes.len() || part.is_err() || whole.is_err() || part == Ok(None));
    }
    if let Ok(Some(header)) = whole {
        assert_eq!(read(&bytes[..header.consumed - 1]), Ok(None), "the last byte counts");
        for behind in [&b"GET / HTTP/1.1\r\n"[..], b"\r\n", b"\n", b"\0", b"PROXY TCP4 "] {
            assert_eq!(read(&[&bytes[..header.consumed], behind].concat()), whole);
        }
    }
    whole
}

fn v1(line: &str) -> Result<Option<Header>, Reject> {
    verdict(line.as_bytes())
}

#[test]
fn section_2_1_addresses() {
    for (line, source, destination) in [
        ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324", "192.168.0.11:443"),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            "255.255.255.255:65535",
            "255.255.255.255:65535",
        ),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0", "0.0.0.0:0"),
        ("PROXY TCP6 2001:db8::1 2001:DB8::2 1 2\r\n", "[2001:db8::1]:1", "[2001:db8::2]:2"),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        ),
        ("PROXY TCP6 ::ffff:c000:201 ::ffff:192.0.2.2 1 2\r\n", "192.0.2.1:1", "192.0.2.2:2"),
    ] {
        let expected = Header { consumed: line.len(), source: address(source), destination: address(destination) };
        assert_eq!(v1(line), Ok(Some(expected)), "{line}");
    }
}

#[test]
fn section_2_1_unknown_says_nothing() {
    let longest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(longest.len(), MOST_V1_BYTES);
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n", "PROXY UNKNOWN TCP4 1.2.3.4 x\0\u{e9}\r\n", &longest] {
        assert_eq!(v1(line), Ok(Some(Header::without_addresses(line.len()))), "{line:?}");
    }
    assert_eq!(v1("PROXY UNKNOWNS\r\n"), Err(Reject::BadLine));
    assert_eq!(v1("PROXY unknown\r\n"), Err(Reject::BadLine));
}

#[test]
fn section_2_1_lines_that_do_not_match_exactly() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        // The family says which form.
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 ::1 1.2.3.4 1 2\r\n",
        // Numbers.
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4. 5.6.7.8 1 2\r\n",
        "PROXY TCP4 0x1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 00\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 99999999999999999999\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 a\r\n",
        "PROXY TCP6 :: :::1 1 2\r\n",
        "PROXY TCP6 1::2::3 ::1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP6 12345::1 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\0\r\n",
        // Its end is CRLF and nothing else.
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\rx\r\n",
        "PROXY UNKNOWN a\nb\r\n",
    ] {
        assert_eq!(v1(line), Err(Reject::BadLine), "{line:?}");
    }
    assert_eq!(verdict(b"PROXY TCP4 \xff.2.3.4 5.6.7.8 1 2\r\n"), Err(Reject::BadLine));
}

#[test]
fn section_2_1_a_line_that_does_not_end() {
    let line = format!("PROXY UNKNOWN {}", "x".repeat(MOST_V1_BYTES));
    assert_eq!(v1(&line), Err(Reject::TooLong));
    assert_eq!(read(&line.as_bytes()[..MOST_V1_BYTES - 1]), Ok(None));
    assert_eq!(read(&line.as_bytes()[..MOST_V1_BYTES]), Err(Reject::TooLong));
    // The 107th byte is CR: its LF would be the 108th.
    let late = format!("{}\r\n", &line[..MOST_V1_BYTES - 1]);
    assert_eq!(v1(&late), Err(Reject::TooLong));
    let last = format!("{}\r\n", &line[..MOST_V1_BYTES - 2]);
    assert_eq!(v1(&last), Ok(Some(Header::without_addresses(MOST_V1_BYTES))));
}

#[test]
fn section_2_2_what_is_neither_version_is_told_at_its_first_byte() {
    for bytes in [
        &b"G"[..],
        b"PRI * HTTP/2.0",
        b"PROXY\t",
        b"PROXYTCP4",
        b"proxy ",
        b"\x16\x03\x01",
        b"\n",
        b"\r\r",
        b"\r\n\r\n\r",
        b"\0",
    ] {
        assert_eq!(verdict(bytes), Err(Reject::NotProxy), "{bytes:?}");
    }
    let mut signature = V2.to_vec();
    signature[11] = b'\r';
    assert_eq!(verdict(&signature), Err(Reject::NotProxy));
    assert_eq!(read(b""), Ok(None));
}

#[test]
fn section_2_2_addresses() {
    let ipv4 = v2(0x21, 0x11, &BLOCK_V4);
    assert_eq!(ipv4.len(), 28);
    let expected = Header { consumed: 28, source: address("192.0.2.1:56324"), destination: address("192.0.2.2:443") };
    assert_eq!(verdict(&ipv4), Ok(Some(expected)));
    let ipv6 = v2(0x21, 0x21, &block_v6());
    assert_eq!(ipv6.len(), 52);
    let expected =
        Header { consumed: 52, source: address("[2001:db8::1]:56324"), destination: address("[2001:db8::2]:443") };
    assert_eq!(verdict(&ipv6), Ok(Some(expected)));
}

#[test]
fn section_2_2_mapped_addresses_are_ipv4() {
    let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_ipv6_mapped().octets();
    let block = [&ip("192.0.2.1")[..], &ip("192.0.2.2"), &[0xdc, 0x04, 1, 0xbb]].concat();
    let header = verdict(&v2(0x21, 0x21, &block)).unwrap().unwrap();
    assert_eq!((header.source, header.destination), (address("192.0.2.1:56324"), address("192.0.2.2:443")));
}

#[test]
fn section_2_2_local_is_skipped_whatever_it_says() {
    for (family, block) in
        [(0x00, &[][..]), (0x11, &BLOCK_V4), (0x11, &[1, 2, 3]), (0xff, &[0; 9]), (0x45, &[]), (0x21, &[7; 300])]
    {
        let bytes = v2(0x20, family, block);
        assert_eq!(verdict(&bytes), Ok(Some(Header::without_addresses(bytes.len()))), "{family:x}");
    }
}

#[test]
fn section_2_2_unspecified_unix_and_datagrams_have_no_addresses() {
    let unix = [&b"/run/a.sock"[..], &[0; 97], b"/run/b.sock", &[0; 97]].concat();
    for (family, block) in [
        (0x00, &[][..]),
        (0x00, &[1, 2, 3, 4, 5]),
        (0x01, &[]),
        (0x10, &BLOCK_V4),
        (0x10, &[1]),
        (0x31, &unix),
        (0x32, &unix),
        (0x12, &BLOCK_V4),
        (0x22, &block_v6()),
        (0x02, &[9; 40]),
    ] {
        let bytes = v2(0x21, family, block);
        assert_eq!(verdict(&bytes), Ok(Some(Header::without_addresses(bytes.len()))), "{family:x}");
    }
}

#[test]
fn section_2_2_versions_and_commands() {
    for command in (0..=255).filter(|command| !matches!(command, 0x20 | 0x21)) {
        assert_eq!(verdict(&v2(command, 0x11, &BLOCK_V4)), Err(Reject::BadCommand), "{command:x}");
    }
}

#[test]
fn section_2_2_families_and_transports() {
    for family in (0..=255u8).filter(|family| family >> 4 > 3 || family & 15 > 2) {
        assert_eq!(verdict(&v2(0x21, family, &[0; 300])), Err(Reject::BadFamily), "{family:x}");
    }
}

#[test]
fn section_2_2_lengths_that_lie() {
    for (family, least) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        for length in 0..least {
            assert_eq!(verdict(&v2(0x21, family, &vec![1; length])), Err(Reject::BadLength), "{family:x}: {length}");
        }
        // Told before the block has come.
        assert_eq!(read(&v2(0x21, family, &vec![1; least - 1])[..V2_HEAD]), Err(Reject::BadLength));
        // Bytes behind the addresses that are no TLV.
        for more in 1..3 {
            assert_eq!(
                verdict(&v2(0x21, family, &vec![1; least + more])),
                Err(Reject::BadLength),
                "{family:x}: {more}"
            );
        }
        assert!(verdict(&v2(0x21, family, &vec![1; least])).is_ok());
    }
}

#[test]
fn section_2_2_tlvs_are_skipped() {
    let noop = [4, 0, 5, 1, 2, 3, 4, 5];
    let empty = [0x30, 0, 0];
    for tlvs in [
        &noop[..],
        &empty,
        &[noop.as_slice(), &empty, &noop].concat(),
        &[0xff, 1, 0].iter().copied().chain([7; 256]).collect::<Vec<_>>(),
    ] {
        let bytes = v2(0x21, 0x11, &[&BLOCK_V4[..], tlvs].concat());
        let header = verdict(&bytes).unwrap().unwrap();
        assert_eq!((header.consumed, header.source), (bytes.len(), address("192.0.2.1:56324")));
    }
    for tlvs in [&[4, 0, 5, 1, 2, 3, 4][..], &[4], &[4, 0], &[4, 0xff, 0xff], &[noop.as_slice(), &[1, 0, 1]].concat()] {
        let bytes = v2(0x21, 0x11, &[&BLOCK_V4[..], tlvs].concat());
        assert_eq!(verdict(&bytes), Err(Reject::BadLength), "{tlvs:?}");
    }
}

#[test]
fn section_2_2_a_header_that_is_too_long_is_told_by_its_length() {
    let filled = |length: usize| {
        let tlv = length - V2_HEAD - 12 - 3;
        let head = [4, (tlv >> 8) as u8, tlv as u8];
        v2(0x21, 0x11, &[&BLOCK_V4[..], &head, &vec![0; tlv]].concat())
    };
    assert_eq!(read(&filled(MOST_V2_BYTES)).unwrap().unwrap().consumed, MOST_V2_BYTES);
    assert_eq!(read(&filled(MOST_V2_BYTES + 1)[..V2_HEAD]), Err(Reject::TooLong));
    assert_eq!(read(&v2(0x20, 0, &vec![0; 5000])), Err(Reject::TooLong), "a local one too");
    assert_eq!(read(&[V2, &[0x21, 0x11, 0xff, 0xff]].concat()), Err(Reject::TooLong));
}

fn written(
    write: fn(&mut Vec<u8>, Option<SocketAddr>, Option<SocketAddr>),
    source: &str,
    destination: &str,
) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write(&mut out, address(source), address(destination));
    out.strip_prefix(b"before").unwrap().to_vec()
}

#[test]
fn section_2_1_written() {
    for (source, destination, line) in [
        ("192.0.2.1:56324", "192.0.2.2:443", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"),
        ("[::1]:1", "[2001:db8::2]:65535", "PROXY TCP6 ::1 2001:db8::2 1 65535\r\n"),
        ("192.0.2.1:1", "[::1]:2", "PROXY TCP6 ::ffff:c000:201 ::1 1 2\r\n"),
        ("[::1]:1", "192.0.2.1:2", "PROXY TCP6 ::1 ::ffff:c000:201 1 2\r\n"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.2:2", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
        ("[fe80::1%3]:1", "[fe80::2%3]:2", "PROXY TCP6 fe80::1 fe80::2 1 2\r\n"),
    ] {
        assert_eq!(String::from_utf8(written(write_v1, source, destination)).unwrap(), line);
    }
    let mut out = Vec::new();
    write_v1(&mut out, None, address("192.0.2.1:1"));
    assert_eq!(out, b"PROXY UNKNOWN\r\n");
}

#[test]
fn section_2_2_written() {
    assert_eq!(written(write_v2, "192.0.2.1:56324", "192.0.2.2:443"), v2(0x21, 0x11, &BLOCK_V4));
    assert_eq!(written(write_v2, "[2001:db8::1]:56324", "[2001:db8::2]:443"), v2(0x21, 0x21, &block_v6()));
    let mut out = Vec::new();
    write_v2(&mut out, address("192.0.2.1:1"), None);
    assert_eq!(out, v2(0x20, 0, &[]));
}

#[test]
fn reasons_have_names_of_their_own() {
    use Reject::*;
    let all = [NotProxy, TooLong, BadLine, BadCommand, BadFamily, BadLength];
    let labels: std::collections::BTreeSet<_> = all.iter().map(|reject| reject.label()).collect();
    assert_eq!(labels.len(), all.len());
}

proptest! {
    /// What is written is read again as what it was, but for the form of mapped addresses and for scopes.
    #[test]
    fn written_and_read_again(source: SocketAddr, destination: SocketAddr, mapped: [bool; 2]) {
        let map = |address: SocketAddr, mapped| match address.ip() {
            IpAddr::V4(ip) if mapped => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            ip => SocketAddr::new(ip, address.port()),
        };
        let told = |address: SocketAddr| Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
        for write in [write_v1, write_v2] {
            let mut out = Vec::new();
            write(&mut out, Some(map(source, mapped[0])), Some(map(destination, mapped[1])));
            let expected = Header { consumed: out.len(), source: told(source), destination: told(destination) };
            prop_assert_eq!(verdict(&out), Ok(Some(expected)));
        }
    }

    /// No bytes behind a good beginning make it panic, or have another verdict in part.
    #[test]
    fn anything_behind_a_good_beginning(binary: bool, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = if binary { V2.to_vec() } else { V1.to_vec() };
        bytes.extend(rest);
        if let Ok(Some(header)) = verdict(&bytes) {
            prop_assert!(header.consumed <= bytes.len());
            prop_assert_eq!(header.source.is_some(), header.destination.is_some());
        }
    }
}
