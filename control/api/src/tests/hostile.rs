//! No input panics, and none makes the reader use more than its limits.

use proptest::prelude::*;

use super::{FULL, mesh::MESH};

/// Words and signs that documents are made of, so that random documents get past the parser.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "listeners",
        "services",
        "address",
        "routes",
        "hosts",
        "names",
        "match",
        "path",
        "to",
        "regex",
        "limits",
        "endpoints",
        "weight",
        "a",
        "127.0.0.1:1",
        "/x/*",
        "1",
        "1s",
        "true",
        ": ",
        ":\n",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "{ ",
        " }",
        "[ ",
        " ]",
        ", ",
        "&a ",
        "*a",
        "\"",
        "'",
        "|",
        ">",
        "!!",
        "---",
        "...",
        "?",
        "%",
        "#",
        "\t",
        "\u{feff}",
        "\u{0}",
        "\u{e9}",
        "<<",
    ];
    let piece = prop::sample::select(words.to_vec()).prop_map(str::to_owned);
    prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat())
}

/// A document with some bytes replaced, taken out, or repeated.
fn mutated(whole: &'static str) -> impl Strategy<Value = String> {
    let edit = (0..whole.len(), 0..3u8, any::<char>(), 1..40usize);
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = whole.chars().collect();
        for (place, kind, character, length) in edits {
            let place = place % text.len().max(1);
            let end = (place + length).min(text.len());
            match kind {
                0 => text[place] = character,
                1 => drop(text.drain(place..end)),
                _ => {
                    let piece = text[place..end].to_vec();
                    text.splice(place..place, piece);
                }
            }
            text.push('\n');
        }
        text.into_iter().collect()
    })
}

/// Whatever is taken can be translated, and its process settings read back.
fn take(text: &str) {
    match crate::load(text, "f") {
        Ok(document) => {
            let resources = crate::translate(&document);
            let process = crate::process(&resources.bootstrap).expect("our own bootstrap");
            assert_eq!(process, crate::Process::from(&document));
        }
        Err(findings) => judge(&findings),
    }
}

/// The same of a mesh: each group can be translated, and each service of it has a name that somebody sends to.
fn take_mesh(text: &str) {
    match crate::mesh::load(text, "f") {
        Ok(mesh) => {
            for group in &mesh.groups {
                let resources = mesh.resources(group, &crate::mesh::State::default());
                assert_eq!(resources.clusters.len(), mesh.services_of(group).count());
                assert_eq!(mesh.group(&group.name), Some(group));
            }
        }
        Err(findings) => judge(&findings),
    }
}

fn judge(findings: &[crate::Finding]) {
    assert!(!findings.is_empty());
    for finding in findings {
        assert!(finding.line >= 1 && finding.column >= 1);
        assert!(!finding.message.contains('\n'), "{finding}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_taken_or_refused(text in ".{0,400}") {
        take(&text);
    }

    #[test]
    fn any_words_are_taken_or_refused(text in pieces()) {
        take(&text);
    }

    #[test]
    fn a_mutated_document_is_taken_or_refused(text in mutated(FULL)) {
        take(&text);
    }

    #[test]
    fn a_mutated_mesh_is_taken_or_refused(text in mutated(MESH)) {
        take_mesh(&text);
    }

    #[test]
    fn any_words_are_a_mesh_or_none(text in pieces()) {
        take_mesh(&format!("trust-domain: a\ngroups:\n  a:\n    {text}"));
    }

    #[test]
    fn any_pattern_is_taken_or_refused(pattern in "[ -~]{0,40}") {
        let quoted = pattern.replace('\'', "''");
        take(&format!("listeners: {{ a: {{ address: 127.0.0.1:1, routes: [ {{ match: {{ path: {{ regex: '{quoted}' }} }}, respond: {{}} }} ] }} }}"));
    }
}

#[test]
fn a_document_cut_anywhere_is_taken_or_refused() {
    for end in 0..FULL.len() {
        if let Some(text) = FULL.get(..end) {
            take(text);
        }
    }
    for end in 0..MESH.len() {
        if let Some(text) = MESH.get(..end) {
            take_mesh(text);
        }
    }
}

#[test]
fn a_large_mesh_is_taken() {
    let mut text = "trust-domain: shop\ngroups:\n".to_owned();
    for i in 0..200 {
        text.push_str(&format!(
            "  g{i}: {{ listeners: {{ in: {{ address: 127.0.0.1:1, tls: {{}}, routes: [ {{ to: s{i} }} ] }} }} }}\n"
        ));
    }
    text.push_str("services:\n");
    for i in 0..10_000 {
        let endpoints: Vec<String> = (1..=10).map(|n| format!("10.0.0.{n}:{}", i + 1)).collect();
        text.push_str(&format!("  s{i}: {{ endpoints: [{}] }}\n", endpoints.join(", ")));
    }
    let mesh = crate::mesh::load(&text, "f").expect("good");
    assert_eq!(mesh.services.len(), 10_000);
    assert_eq!(mesh.services_of(mesh.group("g7").unwrap()).map(|s| s.name.as_str()).collect::<Vec<_>>(), ["s7"]);
}

#[test]
fn many_findings_are_bounded() {
    let text: String = (0..5000).map(|i| format!("k{i}: 1\n")).collect();
    let findings = crate::load(&text, "f").expect_err("bad");
    assert_eq!(findings.len(), 1001);
}

#[test]
fn a_large_good_document_is_taken() {
    let mut text = "listeners:\n  a:\n    address: 127.0.0.1:1\n    routes:\n".to_owned();
    for i in 0..5000 {
        text.push_str(&format!("      - {{ match: {{ path: /r{i}/* }}, to: s{} }}\n", i % 500));
    }
    text.push_str("services:\n");
    for i in 0..500 {
        text.push_str(&format!("  s{i}: {{ endpoints: [10.0.0.1:{}] }}\n", i + 1));
    }
    let document = super::good(&text);
    assert_eq!(crate::translate(&document).clusters.len(), 500);
}
