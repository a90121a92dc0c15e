//! Mutual TLS between two ringways with nothing but `identity:` and `tls:` in two files.

use crate::shop::failed;
use ringway_tests::certificates::{Authority, Issued, Leaf};
use ringway_tests::{Origin, Proxy, Run, eventually};

const WEB: &str = "spiffe://shop/ns/web/sa/web";
const CART: &str = "spiffe://shop/ns/cart/sa/cart";

/// The two words that may say whom to expect.
const WORDS: [&str; 2] = ["identity", "expect"];

fn identity(run: Run, authority: &Authority, own: &Issued) -> Run {
    run.file_of("ca.pem", &authority.pem()).pair("own", own)
}

/// The side of the service: takes only `clients`.
fn back(authority: &Authority, own: &Issued, tls: &str, origin: &Origin) -> Proxy {
    let text = format!(
        "identity: {{ certificate: own.pem, key: own.key, trust: ca.pem }}\n\
         listeners:\n  in: {{ address: '127.0.0.1:$web', tls: {tls}, forwarded: {{ client-certificate: true }}, routes: [ {{ to: app }} ] }}\n\
         services:\n  app: {{ endpoints: [{}] }}\n",
        origin.address()
    );
    identity(Run::new(&text), authority, own).start()
}

/// The side of the client: plaintext in, TLS out.
fn front(authority: &Authority, own: &Issued, tls: &str, back: &Proxy) -> Proxy {
    let text = format!(
        "identity: {{ certificate: own.pem, key: own.key, trust: ca.pem }}\n\
         listeners:\n  out: {{ address: '127.0.0.1:$web', routes: [ {{ to: cart }} ] }}\n\
         services:\n  cart: {{ endpoints: [127.0.0.1:{}], tls: {tls} }}\n",
        back.port("web")
    );
    identity(Run::new(&text), authority, own).start()
}

#[test]
fn two_files_with_identity_and_tls_are_enough() {
    let authority = Authority::new("mesh");
    let (web, cart) = (authority.issue(&Leaf::of(&[WEB])), authority.issue(&Leaf::of(&[CART])));
    for word in WORDS {
        let origin = Origin::echo();
        let back = back(&authority, &cart, &format!("{{ {word}: 'spiffe://shop/ns/web/**' }}"), &origin);
        let front = front(&authority, &web, &format!("{{ {word}: '{CART}' }}"), &back);
        let mut client = front.client();
        for n in 0..20 {
            let answer = client
                .get_with(&format!("/{word}/{n}"), "X-Forwarded-Client-Cert: By=evil;URI=spiffe://shop/ns/admin\r\n");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        // Both know who the other is, and the service is told, of nobody else.
        let path = format!("/{word}/19");
        assert_eq!(front.logged(&path)["destination_identity"], CART);
        let line = back.logged(&path);
        assert_eq!((line["source_identity"].as_str(), line["tls"].as_str()), (Some(WEB), Some("TLSv1.3")), "{line}");
        let seen = origin.seen().pop().unwrap();
        let told = seen.head.field("x-forwarded-client-cert").expect("told once").to_owned();
        let hash = digest(&web);
        for part in [format!("By={CART}"), format!("Hash={hash}"), format!("URI={WEB}")] {
            assert!(told.split(';').any(|word| word.eq_ignore_ascii_case(&part)), "{part} in {told}");
        }
        assert!(!told.contains("evil") && !told.contains("admin"), "{told}");
        // One connection, one handshake.
        let pairs = [("source", WEB), ("service", "app"), ("class", "2xx")];
        eventually("requests are counted by pair", || {
            back.metrics().total("ringway_identity_requests_total", &pairs) == 20.0
        });
        assert_eq!(back.metrics().sum("ringway_tls_handshakes_total", &[("side", "downstream")]), 1.0);
        assert_eq!(front.metrics().sum("ringway_tls_handshakes_total", &[("side", "upstream")]), 1.0);
    }
}

#[test]
fn a_service_is_told_who_the_proxy_is_by_the_name_that_was_asked_for() {
    let authority = Authority::new("mesh");
    let origin = Origin::echo();
    let file = |order: [&str; 2]| {
        let [one, two] = order.map(|name| format!("{{ certificate: {name}.pem, key: {name}.key }}"));
        format!(
            "listeners:\n  web:\n    address: 127.0.0.1:$web\n    tls: {{ certificates: [ {one}, {two} ], clients: required, trust: ca.pem }}\n\
             \x20   forwarded: {{ client-certificate: true }}\n    routes: [ {{ to: app }} ]\n\
             services:\n  app: {{ endpoints: [{}] }}\n",
            origin.address()
        )
    };
    let run = Run::new(&file(["a", "b"])).file_of("ca.pem", &authority.pem());
    let [a, b] =
        ["a", "b"].map(|name| authority.issue(&Leaf::of(&[&format!("spiffe://shop/{name}"), &format!("{name}.test")])));
    let mut proxy = run.pair("a", &a).pair("b", &b).start();
    let tls = ringway_tests::tls::Tls::trusting(&[&authority]).with(&authority.issue(&Leaf::of(&[WEB])));
    let by = || {
        let seen = origin.seen().pop().expect("a request");
        let told = seen.head.field("x-forwarded-client-cert").expect("told").to_owned();
        told.split(';').find_map(|word| word.strip_prefix("By=").map(str::to_owned))
    };
    let mut clients = ["a.test", "b.test"].map(|name| (tls.connect(proxy.address("web"), name), name));
    // The second time the numbers of the certificates are others than at the handshake.
    for order in [["a", "b"], ["b", "a"]] {
        let before = proxy.metrics().sum("ringway_plan_generation", &[]);
        proxy.rewrite(&file(order));
        proxy.signal("HUP");
        eventually("another plan", || proxy.metrics().sum("ringway_plan_generation", &[]) > before);
        for (client, name) in &mut clients {
            client.send(format!("GET /{} HTTP/1.1\r\nHost: {name}\r\n\r\n", order[0]));
            assert_eq!(client.answer().status, 200);
            assert_eq!(by(), Some(format!("spiffe://shop/{}", &name[..1])), "{order:?}");
        }
    }
}

/// SHA-256 of a certificate, by another program.
fn digest(issued: &Issued) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("leaf"), &issued.der).unwrap();
    let output = std::process::Command::new("sha256sum").arg(folder.path().join("leaf")).output().expect("sha256sum");
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn an_empty_map_takes_everybody_of_the_trust() {
    let authority = Authority::new("mesh");
    let (web, cart) = (authority.issue(&Leaf::of(&[WEB])), authority.issue(&Leaf::of(&[CART])));
    let origin = Origin::echo();
    let back = back(&authority, &cart, "{}", &origin);
    let front = front(&authority, &web, &format!("{{ expect: '{CART}' }}"), &back);
    assert_eq!(front.client().get("/").status, 200);
    // But nobody without a certificate: with `identity` they are required.
    let told = ringway_tests::tls::Tls::trusting(&[&authority]).any_name().refused(back.address("web"), "a.test");
    assert!(!told.is_empty());
    failed(&back, "downstream", &["no_certificate"], 1.0);
}

#[test]
fn who_is_not_expected_gets_nothing() {
    let authority = Authority::new("mesh");
    let cart = authority.issue(&Leaf::of(&[CART]));
    let origin = Origin::echo();
    let back = back(&authority, &cart, "{ identity: 'spiffe://shop/ns/web/**' }", &origin);
    let other = authority.issue(&Leaf::of(&["spiffe://shop/ns/batch/sa/batch"]));
    let front_of_other = front(&authority, &other, &format!("{{ identity: '{CART}' }}"), &back);
    let status = front_of_other.client().get("/").status;
    assert!(matches!(status, 502 | 503), "{status}");
    failed(&back, "downstream", &["wrong_identity"], 1.0);
    let web = authority.issue(&Leaf::of(&[WEB]));
    let front = front(&authority, &web, "{ identity: 'spiffe://shop/ns/pay/sa/pay' }", &back);
    assert_eq!(front.client().get("/").status, 503);
    failed(&front, "upstream", &["wrong_identity"], 1.0);
    assert_eq!(origin.count(), 0);
}

#[test]
fn two_meshes_do_not_mix() {
    let (authority, other) = (Authority::new("mesh"), Authority::new("mesh"));
    let (web, cart) = (other.issue(&Leaf::of(&[WEB])), authority.issue(&Leaf::of(&[CART])));
    let origin = Origin::echo();
    let back = back(&authority, &cart, "{ identity: 'spiffe://shop/ns/web/**' }", &origin);
    let front = front(&other, &web, &format!("{{ identity: '{CART}' }}"), &back);
    assert_eq!(front.client().get("/").status, 503);
    assert_eq!(origin.count(), 0);
}
