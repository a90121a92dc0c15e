//! TLS that is passed through: where it goes is read from the ClientHello, whose bytes go on untouched.

use crate::client::Client;
use crate::core::Core;
use crate::ending::Ending;
use crate::log::Record;
use crate::port::{Port, hang_up};
use crate::tcp;
use crate::tunnel::Account;
use plan::{Action, ListenerId};
use ring::{Buf, OutBuf};
use std::rc::Rc;
use wire::client_hello::{self, Hello};

/// How long a ClientHello may take.
const HELLO_NS: u64 = 10_000_000_000;
/// How many bytes it may have.
const HELLO_BYTES: usize = 16 * 1024;

/// Serves a connection to its end.
pub(crate) async fn serve(core: Rc<Core>, port: Rc<Port>, mut client: Client) {
    let begun_ns = ring::now();
    let hello = hello(&core, &mut client).await;
    if let Some((current, listener)) = port.serving(&core) {
        match hello {
            Some((hello, arrived)) => {
                let name = hello.name.as_deref();
                let decision = current.plan.decide_passthrough(listener, name, &client.peer(), ring::random());
                let permitted = |plan: &plan::Plan, listener: ListenerId, client: &Client| {
                    !matches!(plan.decide_passthrough(listener, name, &client.peer(), 0).action, Action::Denied)
                };
                tcp::pass(&core, port, current.clone(), decision, &client, Some(arrived), permitted).await;
            }
            None => {
                let through = current.plan.listener(listener);
                let account = Account::of(&current, through.unrouted, [None; 2], through.logs());
                let record = Record { begun_ns, protocol: "TCP", ..Record::default() };
                account.close(&core, &client, Ending::PassthroughRefused, record);
                client.stream.reset_on_close();
            }
        }
    }
    hang_up(&core, client.stream);
}

/// Reads the ClientHello; with it all that has arrived.
async fn hello(core: &Core, client: &mut Client) -> Option<(Hello, Buf)> {
    let until_ns = ring::now().saturating_add(HELLO_NS);
    let mut arrived = OutBuf::new();
    loop {
        let buf = match client.input.take().or_else(|| client.stream.try_recv()) {
            Some(buf) => buf,
            None => client.stream.recv(until_ns).await.ok().flatten()?,
        };
        core.counters.downstream_received_bytes.add(buf.len() as u64);
        arrived.extend_from_slice(&buf);
        match client_hello::read(&arrived, HELLO_BYTES) {
            Ok(Some(hello)) => return Buf::gathered(arrived).ok().map(|arrived| (hello, arrived)),
            Ok(None) => {}
            Err(_) => return None,
        }
    }
}
