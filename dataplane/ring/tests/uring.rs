//! The runtime over real sockets: a core on its own thread, plain blocking clients.
#![expect(clippy::disallowed_methods, reason = "the clients are plain blocking ones, on no core")]

use ring::host::{Address, bind, probe};
use ring::{Bound, Config, Listener, Message, Socket};
use ringway_ring as ring;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const FOREVER: u64 = u64::MAX;

/// Runs a core that serves each connection with `serve`; its address.
fn core<F, S>(serve: S) -> SocketAddr
where
    F: Future<Output = ()> + 'static,
    S: Fn(Socket) -> F + Send + Copy + 'static,
{
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut bound = bind(&Address::from(any), 1).unwrap();
    let bound = bound.pop().unwrap();
    let Bound::Descriptor(fd) = &bound else { panic!("a descriptor") };
    let address = std::net::TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
    std::thread::spawn(move || {
        let features = probe().unwrap();
        ring::run(&Config::default(), &features, move |_, _| {
            ring::spawn(async move {
                let listener = Listener::new(bound).unwrap();
                loop {
                    let socket = listener.accept().await.unwrap();
                    ring::spawn(serve(socket));
                }
            });
        })
        .unwrap();
    });
    address
}

async fn echo(socket: Socket) {
    while let Ok(Some(buf)) = socket.recv(FOREVER).await {
        let mut message = Message::new();
        message.buf(buf);
        if socket.send(&mut message, FOREVER).await.is_err() {
            return;
        }
    }
}

#[test]
fn bytes_come_back_in_order_and_the_end_is_seen() {
    let address = core(echo);
    let mut client = TcpStream::connect(address).unwrap();
    let mut sender = client.try_clone().unwrap();
    let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n / 3) as u8).collect();
    let copy = sent.clone();
    let thread = std::thread::spawn(move || {
        for chunk in copy.chunks(70_001) {
            sender.write_all(chunk).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    thread.join().unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[test]
fn one_byte_segments_do_not_hold_the_pool() {
    // Nobody reads for a while: pieces are gathered, and everything is there in the end.
    let address = core(|socket| async move {
        ring::sleep_until(ring::now() + 200_000_000).await;
        echo(socket).await;
    });
    let mut clients: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    for round in 0..40u8 {
        for client in &mut clients {
            client.write_all(&[round]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for client in &mut clients {
        let mut got = [0; 40];
        client.read_exact(&mut got).unwrap();
        assert!(got.iter().copied().eq(0..40));
    }
}

#[test]
fn a_receive_times_out_and_the_connection_goes_on() {
    let address = core(|socket| async move {
        let until = ring::now() + 30_000_000;
        assert_eq!(socket.recv(until).await.map(|_| ()), Err(ring::Error::TimedOut));
        let mut message = Message::new();
        message.fixed(b"late");
        socket.send(&mut message, FOREVER).await.unwrap();
        echo(socket).await;
    });
    let mut client = TcpStream::connect(address).unwrap();
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    client.write_all(b"then").unwrap();
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"then");
}

#[test]
fn a_refused_connection_says_so_and_a_silent_one_times_out() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = free.local_addr().unwrap();
    drop(free);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let features = probe().unwrap();
        ring::run(&Config::default(), &features, move |_, _| {
            ring::spawn(async move {
                let result = ring::connect(&Address::from(refused), FOREVER).await;
                tell.send(result.map(|_| ())).unwrap();
                ring::stop();
            });
        })
        .unwrap();
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(5)).unwrap(), Err(ring::Error::Refused));
}

#[test]
fn a_watched_socket_yields_its_token_and_another_thread_wakes_the_core() {
    let (tell, told) = std::sync::mpsc::channel();
    let (wake_out, wake_in) = std::sync::mpsc::channel();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let bound = bind(&Address::from(any), 1).unwrap().pop().unwrap();
    let Bound::Descriptor(fd) = &bound else { panic!("a descriptor") };
    let address = std::net::TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
    std::thread::spawn(move || {
        ring::run(&Config::default(), &probe().unwrap(), move |_, wake| {
            wake_out.send(wake).unwrap();
            let bell = tell.clone();
            ring::spawn(async move {
                ring::rung().await;
                bell.send(0).unwrap();
            });
            ring::spawn(async move {
                let listener = Listener::new(bound).unwrap();
                let socket = listener.accept().await.unwrap();
                socket.watch(7, FOREVER);
                tell.send(ring::watched().await).unwrap();
                socket.watch(8, FOREVER);
                tell.send(ring::watched().await).unwrap();
                drop(socket.try_recv());
                socket.watch(9, ring::now() + 20_000_000);
                tell.send(ring::watched().await).unwrap();
                assert!(socket.is_quiet());
                std::future::pending::<()>().await;
            });
        })
        .unwrap();
    });
    let wait = Duration::from_secs(5);
    let wake = wake_in.recv_timeout(wait).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    client.write_all(b"x").unwrap();
    let tokens: Vec<u64> = (0..3).map(|_| told.recv_timeout(wait).unwrap()).collect();
    assert_eq!(tokens, [7, 8, 9], "bytes, the same bytes again, the time");
    wake.ring();
    wake.ring();
    assert_eq!(told.recv_timeout(wait).unwrap(), 0);
}

#[test]
fn all_cores_tell_the_same_time() {
    let time = || {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let features = probe().unwrap();
            ring::run(&Config::default(), &features, move |_, _| {
                tell.send(ring::now()).unwrap();
                ring::stop();
            })
            .unwrap();
        });
        told.recv().unwrap()
    };
    let first = time();
    std::thread::sleep(Duration::from_millis(30));
    let second = time();
    assert!(second >= first + 30_000_000, "a core that begins later has a later time: {first}, {second}");
}
