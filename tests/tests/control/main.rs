//! What operators do with `ringwayctl`, on a mesh of real processes.
#![forbid(unsafe_code)]

mod certificates;
mod documents;
mod operators;
mod proxies;

use ringway_tests::{Answer, Client, Mesh, Origin, Proxy, eventually, free_port};
use std::net::SocketAddr;

/// Two groups: programs beside `web` send to its `out`, whose proxy sends to cart's `in` over mTLS, whose proxy sends to
/// the origin.
struct Shop {
    out: u16,
    inside: u16,
    origin: Origin,
}

impl Shop {
    fn new() -> Shop {
        Shop { out: free_port(), inside: free_port(), origin: Origin::text("from cart") }
    }

    /// The document, with whom cart lets in.
    fn document(&self, allowed: &str) -> String {
        let Shop { out, inside, origin } = self;
        format!(
            "trust-domain: shop
groups:
  web:
    listeners:
      out: {{ address: 127.0.0.1:{out}, routes: [ {{ name: cart, to: cart }} ] }}
  cart:
    listeners:
      in:
        address: 127.0.0.1:{inside}
        tls: {{}}
        allow: [ {{ name: callers, identity: \"spiffe://shop/group/{allowed}\" }} ]
        routes: [ {{ name: app, to: app }} ]
    services:
      app: {{ endpoints: [{}] }}
services:
  cart: {{ endpoints: {{ group: cart, listener: in }}, tls: {{ expect: group }} }}
",
            origin.address()
        )
    }

    /// A mesh with this document in force and a proxy of each group: cart's, web's.
    fn open(&self) -> (Mesh, Proxy, Proxy) {
        let mesh = Mesh::start();
        mesh.push(&self.document("web"));
        let (cart, web) = (mesh.proxy("cart"), mesh.proxy("web"));
        eventually("a request goes through both", || self.ask().is_some_and(|answer| answer.status == 200));
        (mesh, cart, web)
    }

    /// A program beside web asks cart.
    fn ask(&self) -> Option<Answer> {
        let mut client = Client::try_to(local(self.out)).ok()?;
        client.try_send("GET /x HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n").ok()?;
        client.try_answer("GET").ok()
    }

    fn status(&self) -> Option<u16> {
        self.ask().map(|answer| answer.status)
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
