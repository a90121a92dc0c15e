//! Tunnels: TCP listeners and upgraded connections. Bytes pass both ways, each direction ends for itself, and an end that
//! is no reset means that all was said.

use crate::choice::{Choice, each_secure_seed, each_seed};
use crate::data;
use crate::line::{Flawed, Line};
use crate::script::{Framing, Pace};
use crate::stage::{Stage, WEB, at, web};
use crate::stream::{Cut, Reader, Writer};
use ring::Either;
use ring::sim::Faults;
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

const SECOND: u64 = 1_000_000_000;

const TCP: &str = "listeners:
  raw: { address: 10.9.0.1:80, protocol: tcp, idle-timeout: 600s, to: a }
services:
  a: { endpoints: [10.1.0.1:80], connect-timeout: 20s }
access-log: { path: /dev/null, format: json }
";

/// What passes through a tunnel. Number 0 is the client's side, 1 the origin's.
#[derive(Debug)]
struct Tunnel {
    /// Bytes that each side sends.
    length: [usize; 2],
    /// A side resets after so many.
    cut: [Option<usize>; 2],
    /// A side says nothing before the other has ended.
    waits: [bool; 2],
    pace: [Pace; 2],
    /// What each side has handed to its socket.
    sent: [Cell<usize>; 2],
    /// A side has said that this is all.
    said: [Cell<bool>; 2],
    /// What each side got, and how that ended.
    got: [Cell<Option<(usize, Cut)>>; 2],
    /// Its origin found nothing behind the head before it answered.
    seen: Cell<u32>,
}

impl Tunnel {
    fn any(choice: &mut Choice, cuts: bool) -> Tunnel {
        let mut length = || choice.one_of(&[0, 1, 100, 5000, 50_000]);
        let most = [length(), length()];
        let length = most.map(|most| choice.up_to(most));
        let cut = length.map(|length| (cuts && choice.percent(20)).then(|| choice.up_to(length)));
        let pace =
            [0, 1].map(|side| Pace { most: Pace::any(choice).most.max(length[side] / 300), ..Pace::any(choice) });
        let waits = [choice.percent(25), false];
        Tunnel {
            length,
            cut,
            waits,
            pace,
            sent: Default::default(),
            said: Default::default(),
            got: Default::default(),
            seen: Cell::default(),
        }
    }

    fn key(id: usize, side: usize) -> u64 {
        1000 + (id * 2 + side) as u64
    }

    /// One side's life.
    async fn side(&self, id: usize, side: usize, line: &Line, mut reader: Reader<'_>, mut writer: Writer<'_>) {
        let ended = Cell::new(false);
        let send = async {
            if self.waits[side] {
                ring::wait_until(u64::MAX, || ended.get().then_some(())).await;
            }
            let until = self.cut[side].unwrap_or(self.length[side]);
            while self.sent[side].get() < until {
                let at = self.sent[side].get();
                let part = data::part(Tunnel::key(id, side), at, until - at);
                self.sent[side].set(at + part.len());
                if writer.body(Framing::None, part).await.is_err() {
                    return false;
                }
            }
            match self.cut[side] {
                Some(_) => {
                    let _gone = writer.flush().await;
                    false
                }
                None => {
                    let whole = writer.flush().await.is_ok();
                    self.said[side].set(whole && line.say_end());
                    whole && writer.finish().await.is_ok()
                }
            }
        };
        let receive = async {
            let mut got = 0;
            let cut = loop {
                match reader.some(usize::MAX).await {
                    Ok(bytes) => {
                        let right = data::is_part(Tunnel::key(id, 1 - side), got, &bytes);
                        assert!(right, "wrong bytes behind {got} at side {side}");
                        got += bytes.len();
                        assert!(got <= self.sent[1 - side].get(), "more than was sent");
                    }
                    Err(cut) => break cut,
                }
            };
            let whole = self.length[1 - side];
            assert!(
                cut == Cut::Reset || got == whole,
                "after {got} of {whole} bytes an end as if whole at side {side}"
            );
            assert!(cut == Cut::Reset || self.said[1 - side].get(), "an end that nobody said at side {side}");
            self.got[side].set(Some((got, cut)));
            ended.set(true);
            ring::wake_task(ring::current_task());
            cut
        };
        let (mut send, mut receive) = (pin!(send), pin!(receive));
        // In TLS an end that is not said breaks a stream as a reset does.
        let unsaid = line.is_secure() && self.cut[side].is_some_and(|cut| cut % 2 == 0);
        let broken = || if unsaid { line.cut_off() } else { line.reset_on_close() };
        match ring::select(send.as_mut(), receive.as_mut()).await {
            Either::First(true) => drop(receive.await),
            Either::First(false) => broken(),
            Either::Second(Cut::End) if send.await => {}
            Either::Second(_) => broken(),
        }
    }
}

/// Tunnels through `stage`, from clients that begin with `greet`.
fn tunnels(stage: &mut Stage, cuts: bool, upgrade: bool) -> Rc<Vec<Tunnel>> {
    let count = 1 + stage.choice.below(6);
    let tunnels: Rc<Vec<Tunnel>> = Rc::new((0..count).map(|_| Tunnel::any(&mut stage.choice, cuts)).collect());
    let (all, ledger, hall) = (tunnels.clone(), stage.ledger.clone(), stage.hall());
    stage.listen("10.1.0.1:80", move |socket, mut choice| {
        let (all, ledger, hall) = (all.clone(), ledger.clone(), hall.clone());
        async move {
            let Some(line) = hall.line(socket).await else { return };
            let pace = Pace::any(&mut choice);
            let mut reader = Reader::new(&line, ledger.origin.clone(), pace, choice.split());
            let mut writer = Writer::new(&line, ledger.origin.clone(), Pace::WHOLE, choice.split());
            let Some(id) = greeted(&mut reader, upgrade).await else { return };
            assert_eq!(all[id].seen.replace(1), 0, "a tunnel was made twice");
            if upgrade {
                ring::sleep_until(ring::now() + choice.below(2_000_000_000)).await;
                assert!(reader.is_drained(), "bytes behind the head before it was answered");
                writer.put(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            }
            writer.pace = all[id].pace[1];
            all[id].side(id, 1, &line, reader, writer).await;
        }
    });
    for id in 0..tunnels.len() {
        let (all, mut choice, ledger) = (tunnels.clone(), stage.choice.split(), stage.ledger.clone());
        let dial = stage.dial();
        stage.peer(async move {
            // Not before the proxy listens.
            ring::sleep_until(SECOND).await;
            let Ok(socket) = ring::connect(&at(WEB), u64::MAX).await else { return };
            let Some(line) = dial.line(socket).await else { return };
            let pace = Pace::any(&mut choice);
            let mut reader = Reader::new(&line, ledger.client.clone(), pace, choice.split());
            let mut writer = Writer::new(&line, ledger.client.clone(), all[id].pace[0], choice.split());
            if upgrade {
                writer.put(
                    format!("GET /{id} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                        .as_bytes(),
                );
                if choice.percent(50) {
                    // What stands behind the head waits for the answer.
                    let most = all[id].cut[0].unwrap_or(all[id].length[0]);
                    let first = data::part(Tunnel::key(id, 0), 0, choice.up_to(most));
                    all[id].sent[0].set(first.len());
                    writer.put(first);
                }
                if writer.flush().await.is_err() {
                    return;
                }
                let Ok(head) = reader.head().await else { return };
                if !head.first.starts_with("HTTP/1.1 101") {
                    assert!(head.first.starts_with("HTTP/1.1 50"), "{head:?}");
                    return;
                }
                assert_eq!((head.one("upgrade"), head.one("connection")), (Some("websocket"), Some("upgrade")));
            } else {
                writer.put(&(id as u64).to_le_bytes());
                if writer.flush().await.is_err() {
                    return;
                }
            }
            all[id].side(id, 0, &line, reader, writer).await;
        });
    }
    tunnels
}

/// Which tunnel a connection to the origin is.
async fn greeted(reader: &mut Reader<'_>, upgrade: bool) -> Option<usize> {
    if upgrade {
        let head = reader.head().await.ok()?;
        assert_eq!((head.one("upgrade"), head.one("connection")), (Some("websocket"), Some("upgrade")));
        return head.first.split(' ').nth(1)?.strip_prefix('/')?.parse().ok();
    }
    let mut id = Vec::new();
    while id.len() < 8 {
        id.extend(reader.some(8 - id.len()).await.ok()?);
    }
    Some(u64::from_le_bytes(id.try_into().ok()?) as usize)
}

fn all_whole(tunnels: &[Tunnel]) {
    for tunnel in tunnels.iter().filter(|tunnel| tunnel.cut == [None, None]) {
        for side in [0, 1] {
            let whole = Some((tunnel.length[1 - side], Cut::End));
            assert_eq!(tunnel.got[side].get(), whole, "side {side} of {tunnel:?}");
        }
    }
}

#[test]
fn tcp_passes_every_byte_and_each_end() {
    each_seed("tcp_passes_every_byte_and_each_end", 60, |seed| {
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, TCP);
        let tunnels = tunnels(&mut stage, true, false);
        stage.finish();
        all_whole(&tunnels);
        let cut = tunnels.iter().filter(|tunnel| tunnel.cut != [None, None]).count() as u64;
        assert_eq!(stage.ended("tunnel_closed"), tunnels.len() as u64 - cut);
    });
}

#[test]
fn tcp_never_shows_a_broken_stream_as_whole() {
    each_seed("tcp_never_shows_a_broken_stream_as_whole", 60, |seed| {
        let mut stage = Stage::new(seed, Faults { reset: 5, ..Faults::seeded(seed) }, 2, TCP);
        tunnels(&mut stage, true, false);
        stage.finish();
    });
}

#[test]
fn tcp_never_shows_flawed_tls_as_whole() {
    each_secure_seed(
        "tcp_never_shows_flawed_tls_as_whole",
        60,
        |_| true,
        |seed| {
            let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, TCP);
            (stage.clients_flawed, stage.origins_flawed) = (Flawed::Some(50), Flawed::Some(50));
            tunnels(&mut stage, true, false);
            stage.finish();
        },
    );
}

#[test]
fn an_upgraded_connection_passes_every_byte() {
    each_seed("an_upgraded_connection_passes_every_byte", 60, |seed| {
        let yaml = web("10.1.0.1:80", "", "", "");
        let mut stage = Stage::new(seed, Faults::seeded(seed).unbroken(), 1, &yaml);
        let tunnels = tunnels(&mut stage, true, true);
        stage.finish();
        all_whole(&tunnels);
    });
}

#[test]
fn an_upgraded_connection_never_shows_a_broken_stream_as_whole() {
    each_seed("an_upgraded_connection_never_shows_a_broken_stream_as_whole", 40, |seed| {
        let yaml = web("10.1.0.1:80", "", "", "");
        let mut stage = Stage::new(seed, Faults { reset: 5, ..Faults::seeded(seed) }, 2, &yaml);
        tunnels(&mut stage, true, true);
        stage.finish();
    });
}

#[test]
fn a_tunnel_in_which_nothing_passes_ends() {
    each_seed("a_tunnel_in_which_nothing_passes_ends", 10, |seed| {
        let yaml = TCP.replace("600s", "5s");
        let mut stage = Stage::new(seed, Faults::some().unbroken(), 1, &yaml);
        let (hall, dial) = (stage.hall(), stage.dial());
        stage.listen("10.1.0.1:80", move |socket, _| {
            let hall = hall.clone();
            async move {
                let line = hall.line(socket).await.expect("a handshake");
                assert!(line.recv(u64::MAX).await.is_err(), "idleness looks like an end");
            }
        });
        stage.peer(async move {
            ring::sleep_until(SECOND).await;
            let socket = ring::connect(&at(WEB), u64::MAX).await.expect("a connection");
            let line = dial.line(socket).await.expect("a handshake");
            let begun = ring::now();
            assert!(line.recv(u64::MAX).await.is_err(), "idleness looks like an end");
            let waited = ring::now() - begun;
            assert!((4_900_000_000..7_000_000_000).contains(&waited), "{waited} ns");
        });
        stage.finish();
        assert_eq!(stage.ended("tunnel_idle"), 1);
    });
}
