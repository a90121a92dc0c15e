//! A tour of `deploy/examples/gateway.yaml`: real requests through every kind of route, and what must come back.

use ringway_tests::{Answer, Client, Conversation, Origin, Seen, respond};
use std::fmt;
use std::net::SocketAddr;

/// The host that the example's routes are for.
const HOST: &str = "shop.example.com";

/// One thing that was tried.
pub(crate) struct Stop {
    /// What kind of route it shows.
    kind: &'static str,
    /// What was sent, in short.
    sent: String,
    /// What came back, in short.
    came: String,
    /// What should have come, if that is not what came.
    pub(crate) wrong: Option<String>,
}

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stop { kind, sent, came, wrong } = self;
        write!(out, "{kind}: {sent}: {came}; wanted: {}", wrong.as_deref().unwrap_or("that"))
    }
}

/// One request and what must come back.
struct Ask {
    kind: &'static str,
    method: &'static str,
    path: &'static str,
    /// Field lines, each with CRLF.
    fields: &'static str,
    status: u16,
    /// Must stand in the head or the body.
    words: &'static str,
}

const ASKS: &[Ask] = &[
    Ask {
        kind: "exact path, answered by the proxy",
        method: "GET",
        path: "/hello",
        fields: "",
        status: 200,
        words: "hello from the gateway",
    },
    Ask {
        kind: "prefix, rewritten",
        method: "GET",
        path: "/cart/42?size=m",
        fields: "",
        status: 200,
        words: "shop got GET /basket/42?size=m",
    },
    Ask { kind: "prefix takes whole segments", method: "GET", path: "/cartoon", fields: "", status: 404, words: "404" },
    Ask {
        kind: "regular expression",
        method: "GET",
        path: "/v12/items",
        fields: "",
        status: 200,
        words: "shop got GET /v12/items",
    },
    Ask {
        kind: "method",
        method: "POST",
        path: "/upload",
        fields: "Content-Length: 5\r\n",
        status: 200,
        words: "shop got POST /upload, 5 bytes",
    },
    Ask {
        kind: "another method does not match",
        method: "GET",
        path: "/upload",
        fields: "",
        status: 404,
        words: "404",
    },
    Ask {
        kind: "header",
        method: "GET",
        path: "/items/7",
        fields: "X-Beta: 1\r\n",
        status: 200,
        words: "beta got GET /items/7",
    },
    Ask {
        kind: "without the header",
        method: "GET",
        path: "/items/7",
        fields: "",
        status: 200,
        words: "shop got GET /items/7",
    },
    Ask {
        kind: "query parameter",
        method: "GET",
        path: "/search?q=socks",
        fields: "",
        status: 200,
        words: "beta got GET /search?q=socks",
    },
    Ask { kind: "redirect", method: "GET", path: "/old/7?x=y", fields: "", status: 308, words: "/items/7?x=y" },
    Ask {
        kind: "edited heads, on the way in",
        method: "GET",
        path: "/edits",
        fields: "X-Internal: secret\r\n",
        status: 200,
        words: "x-from: gateway",
    },
    Ask {
        kind: "edited heads, on the way out",
        method: "GET",
        path: "/edits",
        fields: "",
        status: 200,
        words: "cache-control: no-store",
    },
    Ask {
        kind: "retry: the first endpoint is dead",
        method: "GET",
        path: "/steady",
        fields: "",
        status: 200,
        words: "shop got GET /steady",
    },
    Ask {
        kind: "normalised before it is matched",
        method: "GET",
        path: "//x/../%63art/1",
        fields: "",
        status: 200,
        words: "shop got GET /basket/1",
    },
    Ask { kind: "no route", method: "GET", path: "/nowhere", fields: "", status: 404, words: "request id" },
    Ask {
        kind: "a smuggler is refused",
        method: "POST",
        path: "/upload",
        fields: "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        status: 400,
        words: "400",
    },
];

/// The origin `name` of the tour: tells what it was sent, and speaks WebSocket's opening.
pub(crate) fn origin(name: &'static str, address: &str) -> Origin {
    Origin::on(address, move |conversation| {
        while let Some(seen) = conversation.request() {
            if seen.head.connection("upgrade") {
                return shout(conversation);
            }
            let answer = respond(200, "Content-Type: text/plain\r\nX-Secret: 1\r\n", told(name, &seen).as_bytes());
            conversation.send(answer);
        }
    })
}

/// What an origin says about a request.
fn told(name: &str, seen: &Seen) -> String {
    let bytes = if seen.body.is_empty() { String::new() } else { format!(", {} bytes", seen.body.len()) };
    let mut text = format!("{name} got {} {}{bytes}", seen.head.word(0), seen.head.word(1));
    for field in ["x-from", "x-internal"] {
        if let Some(value) = seen.head.field(field) {
            text.push_str(&format!("; {field}: {value}"));
        }
    }
    text + "\n"
}

fn shout(conversation: &mut Conversation) {
    conversation.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    while let Some(bytes) = conversation.some() {
        conversation.send(bytes.to_ascii_uppercase());
    }
}

/// Takes the tour: the listener `web` and the listener `raw` of a running gateway.
pub(crate) fn take(web: SocketAddr, raw: SocketAddr) -> Vec<Stop> {
    let stops = ASKS.iter().map(|ask| one(web, ask));
    stops.chain([shares(web), websocket(web), tcp(raw)]).collect()
}

fn one(web: SocketAddr, ask: &Ask) -> Stop {
    let body = if ask.method == "POST" { "hello" } else { "" };
    let request = format!("{} {} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n{body}", ask.method, ask.path, ask.fields);
    let fields = ask.fields.trim_end().replace("\r\n", ", ");
    let sent = [ask.method, ask.path, &fields].join(" ").trim_end().to_owned();
    let answer = exchange(web, &request);
    let wrong = (!answer.as_ref().is_ok_and(|answer| ask.is_met(answer)))
        .then(|| format!("{} with {:?}", ask.status, ask.words));
    let came = answer.map_or_else(|error| error, |answer| ask.field_in(&answer).unwrap_or_else(|| short(&answer)));
    Stop { kind: ask.kind, sent, came, wrong }
}

impl Ask {
    /// Whether this is what must come, and nothing stands in it that was to be removed.
    fn is_met(&self, answer: &Answer) -> bool {
        let text = String::from_utf8_lossy(&answer.body);
        let has = text.contains(self.words) || self.field_in(answer).is_some();
        let leaked = text.contains("x-internal") || (self.path == "/edits" && answer.field("x-secret").is_some());
        answer.status == self.status && has && !leaked
    }

    /// The field of the answer's head that has what must come.
    fn field_in(&self, answer: &Answer) -> Option<String> {
        let lines = answer.head.fields.iter().map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()));
        let found = lines.into_iter().find(|line| line.contains(self.words) && !line.starts_with("content-length"));
        found.map(|line| format!("{} {line}", answer.status))
    }
}

/// Status, and the place of a redirect or the body's first line.
fn short(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let first = answer.field("location").unwrap_or_else(|| text.lines().next().unwrap_or_default());
    match first.strip_prefix(&answer.status.to_string()) {
        Some(_) => first.to_owned(),
        None => format!("{} {first}", answer.status),
    }
}

fn exchange(to: SocketAddr, request: &str) -> Result<Answer, String> {
    let mut client = Client::try_to(to).map_err(|error| error.to_string())?;
    client.try_send(request).map_err(|error| error.to_string())?;
    client.try_answer("GET").map_err(|error| error.to_string())
}

fn shares(web: SocketAddr) -> Stop {
    let request = format!("GET /news HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut counts = [0; 2];
    for _ in 0..200 {
        let text = exchange(web, &request).map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        match text {
            Ok(text) if text.starts_with("shop") => counts[0] += 1,
            Ok(text) if text.starts_with("beta") => counts[1] += 1,
            _ => {}
        }
    }
    let [shop, beta] = counts;
    // 20 expected, deviation 4.2: five of them either way.
    let good = shop + beta == 200 && (1..=41).contains(&beta);
    Stop {
        kind: "shares: 90 to 10",
        sent: "GET /news, 200 times".to_owned(),
        came: format!("shop {shop}, beta {beta}"),
        wrong: (!good).then(|| "about 180 and 20".to_owned()),
    }
}

fn websocket(web: SocketAddr) -> Stop {
    let talk = || -> Result<String, String> {
        let mut client = Client::try_to(web).map_err(|e| e.to_string())?;
        let head = format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        client.try_send(head).map_err(|e| e.to_string())?;
        let answer = client.try_answer("GET").map_err(|e| e.to_string())?;
        if answer.status != 101 {
            return Err(short(&answer));
        }
        client.try_send("hello tunnel").map_err(|e| e.to_string())?;
        client.finish();
        let heard = client.rest().map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&heard).into_owned())
    };
    let came = talk();
    let good = came.as_deref() == Ok("HELLO TUNNEL");
    Stop {
        kind: "WebSocket: a tunnel after 101",
        sent: "GET /chat Upgrade: websocket, then \"hello tunnel\"".to_owned(),
        came: came.map_or_else(|error| error, |text| format!("101, then {text:?}")),
        wrong: (!good).then(|| "101, then \"HELLO TUNNEL\"".to_owned()),
    }
}

fn tcp(raw: SocketAddr) -> Stop {
    let answer = exchange(raw, "GET /bytes HTTP/1.1\r\nHost: any\r\n\r\n");
    let good = answer.as_ref().is_ok_and(|answer| answer.body == b"beta got GET /bytes\n");
    Stop {
        kind: "TCP: bytes as they are",
        sent: "GET /bytes through the TCP listener".to_owned(),
        came: answer.map_or_else(|error| error, |answer| short(&answer)),
        wrong: (!good).then(|| "200 from beta, with nothing added".to_owned()),
    }
}
