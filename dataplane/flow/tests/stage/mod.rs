//! A world with one proxy core, and peers that follow a script.

use flow::log::Record;
use flow::{Counters, Order, Process, Series, Start};
use plan::Plan;
use ring::between::{Reader, Sender, bytes, mailbox};
use ring::host::Address;
use ring::sim::{Faults, World};
use ring::{Bound, Config, Error, Listener, Message, OutBuf, Socket};
use ringway_flow as flow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// Nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
const FOREVER: u64 = u64::MAX;

/// What a peer does next. After the last step it takes bytes until the connection ends, then closes.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends this.
    Send(String),
    /// Takes bytes until it has heard this.
    Await(&'static str),
    /// Takes nothing for so long, nanoseconds.
    Sleep(u64),
    /// Ends its sending side.
    Fin,
    /// Resets the connection.
    Reset,
}

/// What peers have heard, over all connections of an origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Rc<RefCell<(String, Option<End>)>>);

type End = Result<(), Error>;

impl Heard {
    /// All bytes, as text.
    pub(crate) fn text(&self) -> String {
        self.0.borrow().0.clone()
    }

    /// How the connection that ended last did.
    pub(crate) fn end(&self) -> Option<End> {
        self.0.borrow().1
    }
}

/// One connection of a peer.
struct Talk {
    socket: Socket,
    /// What came on this one.
    text: String,
    ended: bool,
    heard: Heard,
}

impl Talk {
    /// Takes what comes next, unless the connection has ended.
    async fn take(&mut self) {
        match self.socket.recv(FOREVER).await {
            Ok(Some(buf)) => {
                let text = String::from_utf8_lossy(&buf);
                self.text.push_str(&text);
                self.heard.0.borrow_mut().0.push_str(&text);
            }
            ended => {
                self.ended = true;
                self.heard.0.borrow_mut().1 = Some(ended.map(drop));
            }
        }
    }
}

/// A log record.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) ending: String,
    pub(crate) listener: String,
    pub(crate) route: String,
    pub(crate) service: String,
    pub(crate) destination: String,
    pub(crate) protocol: String,
    pub(crate) status: u16,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

/// A run.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) plan: Option<Arc<Plan>>,
    pub(crate) counters: Arc<Counters>,
    generation: u64,
    orders: Sender<Order>,
    log: Reader,
    wakes: Arc<[OnceLock<ring::Wake>]>,
}

impl Stage {
    /// One core under a configuration.
    pub(crate) fn new(yaml: &str) -> Stage {
        let mut world = World::new(1, Faults::none());
        let wakes: Arc<[OnceLock<ring::Wake>]> = Arc::new([OnceLock::new()]);
        let (orders, inbox) = mailbox();
        let (log_in, log) = bytes(1 << 18);
        let counters = Arc::new(Counters::default());
        let start = Start {
            core: 0,
            wakes: wakes.clone(),
            orders: inbox,
            counters: counters.clone(),
            log: log_in,
            process: Arc::new(Process::default()),
            id_prefix: 7,
        };
        world.node(&Config::default(), move |_, wake| {
            let _ = start.wakes[0].set(wake);
            flow::start(start);
        });
        let mut stage = Stage { world, plan: None, counters, generation: 0, orders, log, wakes };
        stage.apply(yaml);
        stage
    }

    /// Another plan; the one before.
    pub(crate) fn apply(&mut self, yaml: &str) -> Option<Arc<Plan>> {
        let document = api::load(yaml, "test.yaml").unwrap_or_else(|findings| panic!("{findings:#?}"));
        self.generation += 1;
        let plan =
            plan::compile(&api::translate(&document), self.plan.as_deref(), self.generation, &plan::World::default());
        let before = self.plan.replace(Arc::new(plan.unwrap_or_else(|rejections| panic!("{rejections:#?}"))));
        self.order(false, false);
        self.run(SECOND / 10);
        before
    }

    /// Tells the core the plan that it has, and to drain, or to cut off what is left.
    pub(crate) fn order(&mut self, drain: bool, cut: bool) {
        let plan = self.plan.clone().expect("a plan");
        let bound = |listener: &plan::Listener| match &listener.address {
            balance::Address::Ip(ip) => Arc::new(Bound::Simulated(Address::from(*ip))),
            balance::Address::Unix(path) => panic!("{path:?}"),
        };
        let sockets = plan.listeners.iter().map(bound).collect();
        let series = plan.series.iter().map(|_| Arc::new(Series::new(1))).collect();
        drop(self.orders.put(Order { plan, series, rules: Arc::from([]), sockets, drain, cut }));
        self.wakes.iter().filter_map(OnceLock::get).for_each(ring::Wake::ring);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, ns: u64) {
        let until = self.world.now_ns() + ns;
        self.world.run(until);
    }

    /// An origin whose every connection follows the script.
    pub(crate) fn origin(&mut self, address: &str, steps: Vec<Step>) -> Heard {
        let (heard, address) = (Heard::default(), at(address));
        let told = heard.clone();
        self.world.node(&Config::default(), move |_, _| {
            let listener = Listener::new(Bound::Simulated(address)).expect("a free address");
            ring::spawn(async move {
                while let Ok(socket) = listener.accept().await {
                    ring::spawn(play(socket, steps.clone(), told.clone()));
                }
            });
        });
        heard
    }

    /// A client that follows the script.
    pub(crate) fn client(&mut self, steps: Vec<Step>) -> Heard {
        let heard = Heard::default();
        let told = heard.clone();
        self.world.node(&Config::default(), move |_, _| {
            ring::spawn(async move {
                let socket = ring::connect(&at("10.9.0.1:80"), FOREVER).await.expect("a connection");
                play(socket, steps, told).await;
            });
        });
        heard
    }

    /// What was logged since the last look.
    pub(crate) fn records(&mut self) -> Vec<Logged> {
        let (mut records, mut bytes) = (Vec::new(), Vec::new());
        while self.log.pop(&mut bytes).is_some() {
            let record = Record::read(&bytes).expect("a record");
            records.push(Logged {
                ending: record.ending.into(),
                listener: record.listener.into(),
                route: record.route.into(),
                service: record.service.into(),
                destination: record.destination.into(),
                protocol: record.protocol.into(),
                status: record.status,
                received_bytes: record.received_bytes,
                sent_bytes: record.sent_bytes,
            });
            bytes.clear();
        }
        records
    }

    /// How many endings of a kind were counted.
    pub(crate) fn ended(&self, label: &str) -> u64 {
        self.counters.endings().find(|(name, _)| *name == label).map_or(0, |(_, count)| count)
    }
}

async fn play(socket: Socket, steps: Vec<Step>, heard: Heard) {
    let mut talk = Talk { socket, text: String::new(), ended: false, heard };
    for step in steps {
        match step {
            Step::Send(text) => {
                let (mut message, mut out) = (Message::new(), OutBuf::new());
                out.extend_from_slice(text.as_bytes());
                message.out(out);
                if talk.socket.send(&mut message, FOREVER).await.is_err() {
                    break;
                }
            }
            Step::Await(text) => {
                while !talk.text.contains(text) && !talk.ended {
                    talk.take().await;
                }
            }
            Step::Sleep(ns) => ring::sleep_until(ring::now() + ns).await,
            Step::Fin => talk.socket.shutdown_write(),
            Step::Reset => return talk.socket.reset_on_close(),
        }
    }
    while !talk.ended {
        talk.take().await;
    }
}

fn at(text: &str) -> Address {
    Address::from(text.parse::<std::net::SocketAddr>().expect("an address"))
}
