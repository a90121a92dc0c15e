//! After warm-up a keep-alive request allocates nothing on a core: many more requests cost not one allocation more.

use allocation_counter::measure;
use flow::{Counters, Order, Process, Series, Start};
use ring::between::{bytes, mailbox};
use ring::host::{Address, bind, probe};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 64\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Answers each request on each connection.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) && stream.write_all(ANSWER).is_ok() {}
            });
        }
    });
    address
}

fn plan(origin: SocketAddr) -> plan::Plan {
    let text = format!(
        "listeners:\n  web:\n    address: 127.0.0.1:1\n    quota: [ {{ requests: 1000000/s, per: source }}, {{ requests: 1000000/s, per: {{ header: user-agent }} }} ]\n    cors: {{ origins: ['https://*.test', 'https://a.b'], credentials: true, max-age: 1m }}\n    routes:\n      \
         - {{ name: few, match: {{ path: /few }}, quota: {{ requests: 1/h }}, to: app }}\n      \
         - {{ name: v, match: {{ path: /v/* , headers: {{ x-v: {{ regex: '[0-9]+' }} }} }}, rewrite: {{ path: /w/* }}, \
         request-headers: {{ set: {{ x-a: b }} }}, to: {{ app: 1, other: 1 }} }}\n      \
         - {{ name: ping, match: {{ path: /ping }}, respond: {{ body: pong }} }}\n      - {{ name: all, to: app }}\n\
         services:\n  app: {{ endpoints: ['{origin}'], balance: peak-ewma }}\n  other: {{ endpoints: ['{origin}'] }}\n\
         access-log: {{ path: /dev/null }}\n"
    );
    let document = api::load(&text, "test.yaml").unwrap();
    plan::compile(&api::translate(&document), None, 1, &plan::World::default()).unwrap()
}

/// Sends `count` requests on one connection; each answer must be whole.
fn client(address: SocketAddr, count: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let paths = ["/", "/v/1?a=b", "/ping", "/few", "/a/../b"];
    let mut buffer = [0; 4096];
    for number in 0..count {
        let path = paths[number % paths.len()];
        let (method, asks) = match number % 7 {
            6 => ("OPTIONS", "access-control-request-method: PUT\r\n"),
            _ => ("GET", ""),
        };
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: example.com\r\nx-v: 12\r\nuser-agent: test\r\n").unwrap();
        write!(stream, "origin: https://x.test\r\n{asks}\r\n").unwrap();
        let mut got = 0;
        while !is_whole(&buffer[..got]) {
            let read = stream.read(&mut buffer[got..]).unwrap();
            assert!(read > 0, "the connection ended after {number} answers");
            got += read;
        }
    }
}

/// An answer of the origin, of a route, or one that a quota refuses.
fn is_whole(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    head.is_some_and(|head| {
        let (status, body) = (&answer[9..12], &answer[head + 4..]);
        status == b"204"
            || body.ends_with(if status == b"429" {
                b"\n"
            } else if body.len() < 64 {
                b"pong"
            } else {
                b"cdef"
            })
    })
}

/// Runs a core on this thread for `count` requests; how often it allocated.
fn allocations(count: usize) -> u64 {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let bound = bind(&Address::from(any), 1).unwrap().remove(0);
    let ring::Bound::Descriptor(fd) = &bound else { panic!("a descriptor") };
    let address = TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let plan = Arc::new(plan(origin()));
    let (mut orders, taken) = mailbox();
    let (writer, _reader) = bytes(1 << 16);
    let series = plan.series.iter().map(|_| Arc::new(Series::new(1))).collect();
    orders.put(Order { plan, series, rules: [].into(), sockets: [Arc::new(bound)].into(), drain: false, cut: false });
    let start = Start {
        core: 0,
        wakes: [OnceLock::new()].into(),
        orders: taken,
        counters: Arc::new(Counters::default()),
        log: writer,
        process: Arc::new(Process::default()),
        id_prefix: 7,
    };
    let (features, end) = (probe().unwrap(), done.clone());
    let sender = std::thread::spawn(move || {
        client(address, count);
        done.store(true, Ordering::Relaxed);
    });
    let info = measure(|| {
        ring::run(&ring::Config::default(), &features, |_, _| {
            flow::start(start);
            ring::spawn(async move {
                while !end.load(Ordering::Relaxed) {
                    ring::sleep_until(ring::now() + 1_000_000).await;
                }
                ring::stop();
            });
        })
        .unwrap();
    });
    sender.join().unwrap();
    info.count_total
}

#[test]
fn a_keep_alive_request_allocates_nothing_after_warm_up() {
    let (few, many) = (allocations(100), allocations(400));
    // Not one in a hundred requests: what may differ is when a list last grew.
    assert!(many <= few + 2, "100 requests: {few} allocations, 400: {many}");
}
