//! The runtime in the simulated world: every byte arrives once and in order under every fault, and nothing leaks.
//!
//! `RINGWAY_SEED=N` runs one seed alone, `RINGWAY_SEEDS=N` the first N. A failure prints its seed.

use ring::host::Address;
use ring::sim::{Faults, NodeId, World};
use ring::{Bound, BufferSizes, Config, Error, Listener, Message, OutBuf, Socket};
use ringway_ring as ring;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::OnceLock;

const FOREVER: u64 = u64::MAX;
const SECOND: u64 = 1_000_000_000;

/// Runs a scenario for each seed; names the one that fails.
fn each_seed(count: u64, scenario: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RINGWAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RINGWAY_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        let _tell = Tell(seed);
        scenario(seed);
    }
}

struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0} (RINGWAY_SEED={0} runs it alone)", self.0);
        }
    }
}

/// Choices of a scenario.
struct Choice(u64);

impl Choice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

/// What every stream carries: no two places of it look alike.
fn data() -> &'static [u8] {
    static DATA: OnceLock<Vec<u8>> = OnceLock::new();
    DATA.get_or_init(|| {
        let mut choice = Choice(7);
        (0..400_000).map(|_| choice.below(256) as u8).collect()
    })
}

/// Part of the endless stream that begins at `base` of the data.
fn part(base: usize, at: usize, most: usize) -> &'static [u8] {
    let from = (base + at) % data().len();
    &data()[from..data().len().min(from + most)]
}

fn check(base: usize, mut at: usize, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let expected = part(base, at, bytes.len());
        assert!(bytes[..expected.len()] == *expected, "wrong bytes within {at}..{}", at + expected.len());
        at += expected.len();
        bytes = &bytes[expected.len()..];
    }
}

fn at(text: &str) -> Address {
    Address::from(text.parse::<SocketAddr>().unwrap())
}

fn config(choice: &mut Choice) -> Config {
    let small = BufferSizes {
        bytes: choice.one_of(&[128, 512, 4096]),
        count: choice.one_of(&[2, 4, 16, 64]),
        most: choice.one_of(&[4, 16, 64]),
    };
    let large = BufferSizes { bytes: choice.one_of(&[2048, 16384, 65536]), count: 2, most: choice.one_of(&[2, 4, 8]) };
    Config { small, large, seed: choice.below(1000), ..Config::default() }
}

/// A node that serves each connection of an address with a task.
fn server<F: Future<Output = ()> + 'static>(
    world: &mut World,
    config: &Config,
    address: Address,
    serve: impl Fn(Socket) -> F + 'static,
) -> NodeId {
    world.node(config, move |_, _| {
        let listener = Listener::new(Bound::Simulated(address)).unwrap();
        ring::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(socket) => drop(ring::spawn(serve(socket))),
                    Err(error) => {
                        assert_eq!(error, Error::Exhausted);
                        ring::sleep_until(ring::now() + 1_000_000).await;
                    }
                }
            }
        });
    })
}

async fn echo(socket: Socket) {
    let mut message = Message::new();
    while let Ok(Some(buf)) = socket.recv(FOREVER).await {
        message.buf(buf);
        while message.room() > 0
            && let Some(more) = socket.try_recv()
        {
            message.buf(more);
        }
        if socket.send(&mut message, FOREVER).await.is_err() {
            return;
        }
    }
    socket.shutdown_write();
}

/// Sends a stream of `length` bytes in pieces of different kinds.
async fn send_all(socket: &Socket, base: usize, length: usize, mut choice: Choice) -> Result<(), Error> {
    let mut sent = 0;
    let mut message = Message::new();
    while sent < length {
        for _ in 0..=choice.below(4) {
            let most = choice.one_of(&[1, 10, 100, 1000, 10_000, 70_000]).min(length - sent);
            let bytes = part(base, sent, most);
            sent += bytes.len();
            if choice.below(2) == 0 {
                message.fixed(bytes);
            } else {
                let mut out = OutBuf::new();
                out.extend_from_slice(bytes);
                message.out(out);
            }
        }
        socket.send(&mut message, FOREVER).await?;
    }
    Ok(())
}

/// Receives a stream to its end; its length.
async fn receive_all(socket: &Socket, base: usize) -> Result<usize, (usize, Error)> {
    let mut got = 0;
    loop {
        match socket.recv(FOREVER).await {
            Ok(Some(buf)) => {
                check(base, got, &buf);
                got += buf.len();
            }
            Ok(None) => return Ok(got),
            Err(error) => return Err((got, error)),
        }
    }
}

/// A client that sends and receives at once.
fn echo_client(address: Address, base: usize, length: usize, choice: Choice, done: Rc<Cell<u32>>) {
    ring::spawn(async move {
        let socket = Rc::new(ring::connect(&address, FOREVER).await.unwrap());
        let sender = socket.clone();
        ring::spawn(async move {
            send_all(&sender, base, length, choice).await.unwrap();
            sender.shutdown_write();
        });
        assert_eq!(receive_all(&socket, base).await, Ok(length));
        done.set(done.get() + 1);
    });
}

/// Echo over a few connections; the hash of what happened.
fn echo_world(seed: u64, faults: Faults, most: u64) -> u64 {
    let mut choice = Choice(seed);
    let mut world = World::new(seed, faults);
    let address = at("127.0.0.1:80");
    server(&mut world, &config(&mut choice), address.clone(), echo);
    let done = Rc::new(Cell::new(0));
    let count = 1 + choice.below(4) as u32;
    let clients = config(&mut choice);
    let told = done.clone();
    world.node(&clients, move |_, _| {
        for _ in 0..count {
            let (base, length) = (choice.below(300_000) as usize, 1 + choice.below(most) as usize);
            echo_client(address.clone(), base, length, Choice(choice.below(1 << 40)), told.clone());
        }
    });
    let all = world.run_until(3600 * SECOND, || done.get() == count);
    assert!(all, "{} of {count} clients ended, at {} ns", done.get(), world.now_ns());
    world.check_leaks();
    world.trace_hash()
}

#[test]
fn every_byte_comes_back_under_every_fault() {
    each_seed(600, |seed| {
        echo_world(seed, Faults::seeded(seed).unbroken(), 50_000);
    });
}

#[test]
fn megabytes_come_back_under_every_fault() {
    each_seed(12, |seed| {
        echo_world(seed, Faults::seeded(seed).unbroken(), 4_000_000);
    });
}

#[test]
fn every_byte_comes_back_under_heavy_faults() {
    each_seed(100, |seed| {
        echo_world(seed, Faults::heavy().unbroken(), 20_000);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| echo_world(seed, Faults::heavy().unbroken(), 20_000);
    assert_eq!(run(1), run(1));
    assert_eq!(run(2), run(2));
    assert_ne!(run(1), run(2));
}

#[test]
fn an_end_without_an_error_means_that_all_was_received() {
    // The server sends and closes, or resets midway; the client sends all the while, which is answered by resets.
    let early_ends = Cell::new(0);
    each_seed(300, |seed| {
        let mut choice = Choice(seed);
        let mut world = World::new(seed, Faults { reset: 3, ..Faults::seeded(seed) });
        let address = at("127.0.0.1:80");
        let resets = choice.below(2) == 0;
        let length = 1 + choice.below(30_000) as usize;
        server(&mut world, &config(&mut choice), address.clone(), move |socket| async move {
            let _ = send_all(&socket, 5, if resets { length / 2 } else { length }, Choice(seed)).await;
            if resets {
                socket.reset_on_close();
            }
        });
        let endings = Rc::new(RefCell::new(Vec::new()));
        let told = endings.clone();
        world.node(&config(&mut choice), move |_, _| {
            for _ in 0..5 {
                let (address, told) = (address.clone(), told.clone());
                ring::spawn(async move {
                    let Ok(socket) = ring::connect(&address, FOREVER).await else {
                        return told.borrow_mut().push(Err((0, Error::Refused)));
                    };
                    let socket = Rc::new(socket);
                    let sender = socket.clone();
                    ring::spawn(async move {
                        let _ = send_all(&sender, 9, 3000, Choice(seed)).await;
                    });
                    let ending = receive_all(&socket, 5).await;
                    told.borrow_mut().push(ending);
                });
            }
        });
        assert!(world.run_until(3600 * SECOND, || endings.borrow().len() == 5), "{} ended", endings.borrow().len());
        for ending in endings.borrow().iter() {
            match ending {
                Ok(got) => assert!(*got == length && !resets, "an end after {got} of {length} bytes"),
                Err(_) => early_ends.set(early_ends.get() + 1),
            }
        }
        world.check_leaks();
    });
    assert!(early_ends.get() > 0 || std::env::var("RINGWAY_SEED").is_ok());
}

#[test]
fn each_direction_ends_for_itself() {
    each_seed(200, |seed| {
        let mut choice = Choice(seed);
        let mut world = World::new(seed, Faults::seeded(seed).unbroken());
        let address = Address::unix("/run/half.sock".as_ref()).unwrap();
        server(&mut world, &config(&mut choice), address.clone(), |socket| async move {
            let got = receive_all(&socket, 11).await.unwrap();
            send_all(&socket, 13, got, Choice(1)).await.unwrap();
        });
        let done = Rc::new(Cell::new(false));
        let told = done.clone();
        world.node(&config(&mut choice), move |_, _| {
            ring::spawn(async move {
                let socket = ring::connect(&address, FOREVER).await.unwrap();
                assert_eq!(socket.peer(), None);
                send_all(&socket, 11, 9_999, Choice(2)).await.unwrap();
                socket.shutdown_write();
                assert_eq!(receive_all(&socket, 13).await, Ok(9_999));
                told.set(true);
            });
        });
        assert!(world.run_until(3600 * SECOND, || done.get()));
        world.check_leaks();
    });
}

#[test]
fn what_is_dropped_in_the_midst_of_anything_is_cancelled_and_closed() {
    each_seed(60, |seed| {
        let mut choice = Choice(seed);
        let mut world = World::new(seed, Faults::seeded(seed));
        let address = at("[::1]:80");
        server(&mut world, &config(&mut choice), address.clone(), echo);
        let ended = Rc::new(Cell::new(0));
        let told = ended.clone();
        let clients = world.node(&config(&mut choice), move |_, _| {
            for _ in 0..10 {
                let (address, told) = (address.clone(), told.clone());
                let (wait, mut choice) = (choice.below(20_000_000), Choice(choice.below(1 << 40)));
                ring::spawn(async move {
                    {
                        let until = ring::now() + wait;
                        let whole = std::pin::pin!(async {
                            let socket = ring::connect(&address, until).await?;
                            if choice.below(2) == 0 {
                                socket.reset_on_close();
                            }
                            loop {
                                send_all(&socket, 1, 5000, Choice(choice.below(1 << 40))).await?;
                                socket.recv(until).await?;
                            }
                            #[expect(unreachable_code, reason = "names the type")]
                            Ok::<(), Error>(())
                        });
                        let _ = ring::select(whole, std::pin::pin!(ring::sleep_until(until))).await;
                    }
                    // Memory of a send that still goes on must not be had again.
                    let mut scribbled: Vec<OutBuf> = (0..8).map(|_| OutBuf::new()).collect();
                    scribbled.iter_mut().for_each(|out| out.resize(2000, 0xee));
                    told.set(told.get() + 1);
                });
            }
        });
        assert!(world.run_until(3600 * SECOND, || ended.get() == 10));
        // Nothing but time is needed for all sockets of the clients to close.
        let limit = world.now_ns() + SECOND;
        world.run(limit);
        assert_eq!(world.stats(clients).snapshot().sockets, 0);
        world.check_leaks();
    });
}

#[test]
fn watched_sockets_tell_of_bytes_ends_and_time() {
    each_seed(100, |seed| {
        let mut choice = Choice(seed);
        let mut world = World::new(seed, Faults::seeded(seed).unbroken());
        let address = at("127.0.0.1:80");
        // Three kinds of servers by what arrives: bytes later, an end, silence.
        server(&mut world, &config(&mut choice), address.clone(), |socket| async move {
            let Ok(Some(kind)) = socket.recv(FOREVER).await else { panic!("one byte") };
            match kind[0] {
                0 => {
                    ring::sleep_until(ring::now() + SECOND / 10).await;
                    send_all(&socket, 3, 10, Choice(1)).await.unwrap();
                    let _ = socket.recv(FOREVER).await;
                }
                1 => {}
                _ => drop(socket.recv(FOREVER).await),
            }
        });
        let seen = Rc::new(RefCell::new(Vec::new()));
        let told = seen.clone();
        world.node(&config(&mut choice), move |_, _| {
            ring::spawn(async move {
                let mut sockets = Vec::new();
                for kind in [&[0u8][..], &[1], &[2]] {
                    let socket = ring::connect(&address, FOREVER).await.unwrap();
                    let mut message = Message::new();
                    message.fixed(match kind[0] {
                        0 => &[0],
                        1 => &[1],
                        _ => &[2],
                    });
                    socket.send(&mut message, FOREVER).await.unwrap();
                    socket.watch(kind[0].into(), ring::now() + 20 * SECOND);
                    sockets.push(socket);
                }
                for _ in 0..3 {
                    let token = ring::watched().await;
                    let socket = &sockets[token as usize];
                    match token {
                        0 => check(3, 0, &socket.try_recv().unwrap()),
                        1 => assert_eq!(socket.recv(FOREVER).await.map(|buf| buf.is_some()), Ok(false)),
                        _ => assert!(socket.is_quiet() && ring::now() >= 20 * SECOND),
                    }
                    told.borrow_mut().push(token);
                }
            });
        });
        assert!(world.run_until(3600 * SECOND, || seen.borrow().len() == 3), "{:?}", seen.borrow());
        let mut seen = seen.borrow().clone();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
        world.check_leaks();
    });
}

#[test]
fn a_tiny_pool_serves_many_without_a_deadlock() {
    each_seed(100, |seed| {
        let mut choice = Choice(seed);
        let mut world = World::new(seed, Faults { idle_no_buffers: 1000, ..Faults::seeded(seed).unbroken() });
        let tiny = Config {
            small: BufferSizes { bytes: 256, count: 2, most: 2 },
            large: BufferSizes { bytes: 1024, count: 1, most: 1 },
            ..Config::default()
        };
        let address = at("127.0.0.1:80");
        // Idle connections whose buffers have nothing to do, and some who hold a buffer for long.
        let node = server(&mut world, &tiny, address.clone(), |socket| async move {
            let Ok(Some(mut first)) = socket.recv(FOREVER).await else { return };
            if first[0] == 1 {
                // Holds its buffer, and waits for what the others do.
                ring::sleep_until(ring::now() + 600 * SECOND).await;
                return drop(first);
            }
            first.advance(1);
            let mut message = Message::new();
            message.buf(first);
            socket.send(&mut message, FOREVER).await.unwrap();
            echo(socket).await;
        });
        let done = Rc::new(Cell::new(0));
        let told = done.clone();
        world.node(&config(&mut choice), move |_, _| {
            for kind in 0..40u64 {
                let (address, told, choice) = (address.clone(), told.clone(), Choice(seed ^ kind << 32));
                ring::spawn(async move {
                    let socket = Rc::new(ring::connect(&address, FOREVER).await.unwrap());
                    let mut message = Message::new();
                    message.fixed(if kind < 4 { &[1] } else { &[0] });
                    if kind < 30 {
                        // Idle, or a holder.
                        if kind < 4 {
                            socket.send(&mut message, FOREVER).await.unwrap();
                        }
                        ring::sleep_until(10_000 * SECOND).await;
                        return;
                    }
                    ring::sleep_until(ring::now() + SECOND).await;
                    socket.send(&mut message, FOREVER).await.unwrap();
                    ring::sleep_until(ring::now() + SECOND).await;
                    let sender = socket.clone();
                    ring::spawn(async move {
                        send_all(&sender, 3, 5000, choice).await.unwrap();
                        sender.shutdown_write();
                    });
                    assert_eq!(receive_all(&socket, 3).await, Ok(5000));
                    told.set(told.get() + 1);
                });
            }
        });
        assert!(world.run_until(500 * SECOND, || done.get() == 10), "{} of 10 were served", done.get());
        assert!(world.stats(node).snapshot().no_buffers > 0);
        world.check_leaks();
    });
}

#[test]
fn connects_time_out_are_refused_and_spread() {
    each_seed(50, |seed| {
        let mut world = World::new(seed, Faults { latency_ns: (1000, 5000), ..Faults::seeded(seed).unbroken() });
        world.blackhole(at("10.9.9.9:80"));
        let address = at("10.1.1.1:80");
        let served = Rc::new(RefCell::new([0; 2]));
        for node in 0..2 {
            let served = served.clone();
            server(&mut world, &Config::default(), at("0.0.0.0:80"), move |socket| {
                served.borrow_mut()[node] += 1;
                assert!(socket.peer().unwrap().ip().to_string().starts_with("10.0."));
                echo(socket)
            });
        }
        let done = Rc::new(Cell::new(false));
        let told = done.clone();
        world.node(&Config::default(), move |_, _| {
            ring::spawn(async move {
                let until = ring::now() + SECOND;
                assert_eq!(ring::connect(&at("10.9.9.9:80"), until).await.err(), Some(Error::TimedOut));
                assert!(ring::now() >= until && ring::now() < until + SECOND / 10);
                assert_eq!(ring::connect(&at("10.1.1.1:81"), FOREVER).await.err(), Some(Error::Refused));
                for _ in 0..30 {
                    let socket = ring::connect(&address, FOREVER).await.unwrap();
                    assert_eq!(socket.peer(), address.ip());
                }
                told.set(true);
            });
        });
        assert!(world.run_until(3600 * SECOND, || done.get()));
        let limit = world.now_ns() + SECOND;
        world.run(limit);
        let served = *served.borrow();
        assert!(served[0] > 0 && served[1] > 0 && served[0] + served[1] == 30, "{served:?}");
        world.check_leaks();
    });
}

#[test]
fn accepting_survives_its_errors() {
    each_seed(100, |seed| {
        let mut world = World::new(seed, Faults { accept_fails: 300, ..Faults::seeded(seed).unbroken() });
        let address = at("127.0.0.1:80");
        server(&mut world, &Config::default(), address.clone(), echo);
        let done = Rc::new(Cell::new(0));
        let told = done.clone();
        world.node(&Config::default(), move |_, _| {
            for _ in 0..10 {
                let (address, told) = (address.clone(), told.clone());
                ring::spawn(async move {
                    // A connection that was aborted before it was accepted is tried again.
                    loop {
                        let socket = ring::connect(&address, FOREVER).await.unwrap();
                        let sent = send_all(&socket, 3, 100, Choice(1)).await;
                        socket.shutdown_write();
                        if sent.is_ok() && receive_all(&socket, 3).await == Ok(100) {
                            break;
                        }
                    }
                    told.set(told.get() + 1);
                });
            }
        });
        assert!(world.run_until(3600 * SECOND, || done.get() == 10), "{} of 10 got in", done.get());
        world.check_leaks();
    });
}

#[test]
fn a_paused_listener_leaves_connections_in_the_backlog() {
    each_seed(50, |seed| {
        let mut world = World::new(seed, Faults { latency_ns: (1000, 5000), ..Faults::seeded(seed).unbroken() });
        let address = at("127.0.0.1:80");
        let listening = address.clone();
        let accepted = Rc::new(Cell::new(0));
        let count = accepted.clone();
        world.node(&Config::default(), move |_, _| {
            let listener = Listener::new(Bound::Simulated(listening)).unwrap();
            ring::spawn(async move {
                let mut kept = vec![listener.accept().await.unwrap()];
                count.set(1);
                listener.pause();
                ring::sleep_until(10 * SECOND).await;
                while kept.len() < 10 {
                    kept.push(listener.accept().await.unwrap());
                    count.set(kept.len());
                }
                drop(listener);
                ring::sleep_until(FOREVER).await;
            });
        });
        world.node(&Config::default(), move |_, _| {
            ring::spawn(async move {
                let mut sockets = vec![ring::connect(&address, FOREVER).await.unwrap()];
                ring::sleep_until(8 * SECOND).await;
                while sockets.len() < 10 {
                    sockets.push(ring::connect(&address, FOREVER).await.unwrap());
                }
                ring::sleep_until(FOREVER).await;
            });
        });
        world.run(9 * SECOND);
        assert_eq!(accepted.get(), 1);
        assert!(world.run_until(3600 * SECOND, || accepted.get() == 10), "{}", accepted.get());
        world.check_leaks();
    });
}

#[test]
fn a_ring_wakes_a_core_and_stop_ends_it() {
    let mut world = World::new(1, Faults::some());
    let bell = Rc::new(RefCell::new(None));
    let heard = Rc::new(Cell::new(0));
    let (keep, count) = (bell.clone(), heard.clone());
    let node = world.node(&Config::default(), move |_, wake| {
        *keep.borrow_mut() = Some(wake);
        ring::spawn(async move {
            loop {
                ring::rung().await;
                count.set(count.get() + 1);
                if count.get() == 3 {
                    ring::stop();
                }
            }
        });
    });
    for round in 1..=4 {
        world.run(round * SECOND);
        bell.borrow().as_ref().unwrap().ring();
    }
    world.run(9 * SECOND);
    assert_eq!(heard.get(), 3);
    world.with_node(node, || assert_eq!(ring::now() % 1000, ring::now() % 1000));
    world.check_leaks();
}

#[test]
fn breaking_all_ends_whatever_waits_for_a_connection() {
    each_seed(30, |seed| {
        let mut choice = Choice(seed);
        let mut world = World::new(seed, Faults::none());
        let address = at("127.0.0.1:80");
        // It takes nothing and says nothing.
        server(&mut world, &config(&mut choice), address.clone(), |socket| async move {
            ring::sleep_until(200 * SECOND).await;
            drop(socket);
        });
        let ended = Rc::new(Cell::new(0));
        let told = ended.clone();
        let node = world.node(&config(&mut choice), move |_, _| {
            for sends in [true, false] {
                let (address, told) = (address.clone(), told.clone());
                ring::spawn(async move {
                    let socket = ring::connect(&address, FOREVER).await.unwrap();
                    let result = match sends {
                        true => send_all(&socket, 0, 100_000_000, Choice(1)).await,
                        false => socket.recv(FOREVER).await.map(drop),
                    };
                    assert_eq!(result, Err(Error::Reset));
                    // And what comes after is refused, not begun.
                    let mut message = Message::new();
                    message.fixed(b"more");
                    assert_eq!(socket.send(&mut message, FOREVER).await, Err(Error::Reset));
                    assert!(socket.is_failed());
                    told.set(told.get() + 1);
                });
            }
        });
        world.run(SECOND);
        assert_eq!(ended.get(), 0);
        world.with_node(node, ring::break_all);
        let now = world.now_ns();
        assert!(world.run_until(now + SECOND, || ended.get() == 2), "{} of 2", ended.get());
        world.check_leaks();
    });
}

#[test]
fn a_task_that_waits_for_something_else_hears_of_a_reset_but_not_of_an_end() {
    let heard_ns = |fin: bool| {
        let mut world = World::new(1, Faults::none());
        let address = at("127.0.0.1:80");
        let heard = Rc::new(Cell::new(None));
        let told = heard.clone();
        server(&mut world, &Config::default(), address.clone(), move |socket| {
            let told = told.clone();
            async move {
                assert!(socket.recv(FOREVER).await.unwrap().is_some());
                let failed = ring::wait_until(100 * SECOND, || socket.is_failed().then_some(())).await;
                told.set(failed.map(|()| ring::now()));
            }
        });
        world.node(&Config::default(), move |_, _| {
            ring::spawn(async move {
                let socket = ring::connect(&address, FOREVER).await.unwrap();
                send_all(&socket, 0, 100, Choice(1)).await.unwrap();
                ring::sleep_until(5 * SECOND).await;
                match fin {
                    true => socket.shutdown_write(),
                    false => return socket.reset_on_close(),
                }
                ring::sleep_until(150 * SECOND).await;
            });
        });
        world.run(200 * SECOND);
        heard.get()
    };
    assert!(heard_ns(false).is_some_and(|at| at < 6 * SECOND));
    assert_eq!(heard_ns(true), None);
}
