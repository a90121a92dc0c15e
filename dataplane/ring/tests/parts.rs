//! What is done to received bytes in place, and messages that are laid out anew: in the simulated world.

use ring::host::Address;
use ring::sim::{Faults, World};
use ring::{Bound, Buf, BufferSizes, Config, Listener, Message, OutBuf, Part, Socket};
use ringway_ring as ring;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

const FOREVER: u64 = u64::MAX;

fn address() -> SocketAddr {
    "127.0.0.1:80".parse().unwrap()
}

/// Runs what a server does with one connection, whose client sends `sent`; what the client gets until the end.
fn talk<F: Future<Output = ()> + 'static>(sent: &'static [u8], serve: impl Fn(Socket) -> F + 'static) -> Vec<u8> {
    let mut world = World::new(3, Faults::none());
    let serve = Rc::new(serve);
    let config = Config {
        small: BufferSizes { bytes: 4096, count: 4, most: 4 },
        large: BufferSizes { bytes: 65_536, count: 2, most: 2 },
        ..Config::default()
    };
    world.node(&config, move |_, _| {
        let listener = Listener::new(Bound::Simulated(Address::from(address()))).unwrap();
        ring::spawn(async move {
            loop {
                let socket = listener.accept().await.unwrap();
                ring::spawn(serve(socket));
            }
        });
    });
    let got = Rc::new(RefCell::new(Vec::new()));
    let into = got.clone();
    world.node(&config, move |_, _| {
        ring::spawn(async move {
            let socket = ring::connect(&Address::from(address()), FOREVER).await.unwrap();
            let mut message = Message::new();
            message.fixed(sent);
            socket.send(&mut message, FOREVER).await.unwrap();
            while let Some(buf) = socket.recv(FOREVER).await.unwrap() {
                into.borrow_mut().extend_from_slice(&buf);
            }
        });
    });
    world.run(10_000_000_000);
    world.check_leaks();
    got.take()
}

async fn receive(socket: &Socket) -> Buf {
    socket.recv(FOREVER).await.unwrap().unwrap()
}

#[test]
fn bytes_change_in_place_and_the_room_behind_belongs_to_the_last_handle() {
    let got = talk(b"head and tail", |socket| async move {
        let mut buf = receive(&socket).await;
        assert_eq!(buf.with_room(64).map(|bytes| bytes.len()), Some(13 + 64));
        buf.make_ascii_uppercase();
        let mut tail = buf.split_off(9);
        assert!(buf.with_room(1).is_none(), "what is behind the head is the tail's");
        assert_eq!(tail.with_room(1).unwrap().len(), 5);
        buf.truncate(4);
        let with_room = buf.with_room(2).unwrap();
        with_room[4..].copy_from_slice(b"!?");
        let two = Buf::gathered({
            let mut out = OutBuf::new();
            out.extend_from_slice(b"!?");
            out
        });
        let mut message = Message::new();
        message.buf(buf);
        message.buf(two.unwrap());
        message.buf(tail);
        socket.send(&mut message, FOREVER).await.unwrap();
    });
    assert_eq!(got, b"HEAD!?TAIL");
}

#[test]
fn a_message_is_laid_out_anew_with_other_bytes_between() {
    let got = talk(b"0123456789", |socket| async move {
        let mut message = Message::new();
        message.buf(receive(&socket).await);
        message.fixed(b"end");
        message.is_last();
        let mut parts = Vec::new();
        message.take_parts(|part| parts.push(part));
        assert_eq!((message.length(), message.ends_writing()), (0, true));
        let mut frames = OutBuf::new();
        frames.extend_from_slice(b"<|>");
        let parts = std::iter::once(Part::Out(frames)).chain(parts);
        let slices = [(0, 0..1), (1, 0..5), (0, 1..2), (1, 5..99), (0, 2..3), (2, 0..3), (7, 0..1)];
        message.lay_out(parts, slices.into_iter());
        assert_eq!(message.length(), 16);
        message.with_parts(|parts| assert_eq!(parts.len(), 3));
        socket.send(&mut message, FOREVER).await.unwrap();
        assert_eq!(message.length(), 0);
    });
    assert_eq!(got, b"<01234|56789>end");
}

#[test]
fn a_message_has_room_for_128_slices() {
    let got = talk(b"x", |socket| async move {
        let mut message = Message::new();
        let parts = [Part::Buf(receive(&socket).await), Part::Fixed(b"y")];
        message.lay_out(parts.into_iter(), (0..128).map(|number| (number % 2, 0..1)));
        assert_eq!(message.room(), 0);
        socket.send(&mut message, FOREVER).await.unwrap();
    });
    assert_eq!(got, b"xy".repeat(64));
}

#[test]
fn what_is_empty_takes_no_place_in_a_message() {
    let got = talk(b"bytes", |socket| async move {
        let mut message = Message::new();
        for _ in 0..100 {
            message.out(OutBuf::new());
            message.fixed(b"");
        }
        message.buf(receive(&socket).await);
        message.with_parts(|parts| assert_eq!(parts.len(), 1));
        assert_eq!(message.room(), 15);
        socket.send(&mut message, FOREVER).await.unwrap();
    });
    assert_eq!(got, b"bytes");
}
