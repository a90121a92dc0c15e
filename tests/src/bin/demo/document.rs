//! The mesh's document, in the four states that the demo puts it in.

use ringway_tests::free_port;
use std::net::{SocketAddr, TcpListener};

/// Where everything listens, on 127.0.0.1.
pub(crate) struct Ports {
    /// The daemon, for proxies and operators; its admin page.
    pub(crate) daemon: u16,
    pub(crate) pages: u16,
    /// The gateway: for the world, and for those inside.
    pub(crate) public: u16,
    pub(crate) inside: u16,
    /// web's proxy: for callers over mTLS, and for web's program.
    pub(crate) web: u16,
    pub(crate) out: u16,
    /// The proxies of both versions of cart, for callers over mTLS.
    pub(crate) cart: u16,
    pub(crate) cart_v2: u16,
    /// The programs: web, cart v1, cart v2.
    pub(crate) programs: [u16; 3],
    /// The admin pages of the proxies, in the order of [`GROUPS`].
    pub(crate) admin: [u16; 4],
}

/// The groups of the mesh, each with one proxy.
pub(crate) const GROUPS: [&str; 4] = ["edge", "web", "cart", "cart-v2"];

impl Ports {
    /// Free ones; where people are to type them, those that the pages name, if they are free.
    pub(crate) fn find(for_people: bool) -> Ports {
        let known = |port: u16| if for_people && is_free(port) { port } else { free_port() };
        Ports {
            daemon: known(9443),
            pages: free_port(),
            public: known(8080),
            inside: free_port(),
            web: free_port(),
            out: known(9000),
            cart: free_port(),
            cart_v2: free_port(),
            programs: [(); 3].map(|()| free_port()),
            admin: [(); 4].map(|()| free_port()),
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("0.0.0.0", port)).is_ok()
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// How many exports anybody may have at once; then one a second.
pub(crate) const BURST: usize = 5;

const FREEZE: &str = "deny: [ { name: freeze, methods: [POST, PUT, DELETE] } ]";

/// The document. Of a hundred calls of cart so many go to its second version; `frozen`: nobody may change anything.
pub(crate) fn document(ports: &Ports, second: u32, frozen: bool) -> String {
    let Ports { public, inside, web, out, cart, cart_v2, programs: [web_program, v1, v2], .. } = ports;
    let deny = if frozen { format!("\n        {FREEZE}") } else { String::new() };
    let first = 100 - second;
    format!(
        r#"trust-domain: shop

groups:
  edge:                                            # the gateway
    listeners:
      public:
        address: 127.0.0.1:{public}{deny}
        routes:
          - {{ name: export, match: {{ path: /export }}, quota: {{ name: exports, requests: 1/s, burst: {BURST} }}, to: web }}
          - {{ name: shop, to: web }}
      inside:                                      # by the same gateway, but past its rules
        address: 127.0.0.1:{inside}
        routes:
          - {{ name: cart, match: {{ path: /cart/* }}, to: cart }}
          - {{ name: web, to: web }}
  web:
    listeners:
      in:
        address: 127.0.0.1:{web}
        tls: {{}}{deny}
        allow: [ {{ name: gateway, identity: "spiffe://shop/group/edge" }} ]
        forwarded: {{ client-certificate: true }}
        routes: [ {{ name: app, to: app }} ]
      out:                                         # web's program sends here what is for cart
        address: 127.0.0.1:{out}
        routes:
          - {{ name: v1, match: {{ path: /v1/* }}, to: cart }}
          - {{ name: v2, match: {{ path: /v2/* }}, to: cart-v2 }}
          - {{ name: cart, to: {{ cart: {first}, cart-v2: {second} }} }}
    services:
      app: {{ endpoints: [127.0.0.1:{web_program}] }}
  cart:
    listeners:
      in:
        address: 127.0.0.1:{cart}
        tls: {{}}{deny}
        allow: [ {{ name: web, identity: "spiffe://shop/group/web" }} ]
        forwarded: {{ client-certificate: true }}
        routes: [ {{ name: app, to: app }} ]
    services:
      app: {{ endpoints: [127.0.0.1:{v1}] }}
  cart-v2:
    listeners:
      in:
        address: 127.0.0.1:{cart_v2}
        tls: {{}}{deny}
        allow: [ {{ name: web, identity: "spiffe://shop/group/web" }} ]
        forwarded: {{ client-certificate: true }}
        routes: [ {{ name: app, to: app }} ]
    services:
      app: {{ endpoints: [127.0.0.1:{v2}] }}

services:
  web: {{ endpoints: {{ group: web, listener: in }}, tls: {{ expect: group }} }}
  cart: {{ endpoints: {{ group: cart, listener: in }}, tls: {{ expect: group }} }}
  cart-v2: {{ endpoints: {{ group: cart-v2, listener: in }}, tls: {{ expect: group }} }}
"#
    )
}
