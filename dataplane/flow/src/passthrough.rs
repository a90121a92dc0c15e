//! TLS that ends elsewhere: where it goes is read from its ClientHello, whose bytes go on as they came.

use crate::client::Client;
use crate::core::Core;
use crate::ending::{Ending, Opening};
use crate::log::Record;
use crate::port::{Port, hang_up};
use crate::tcp;
use crate::tunnel::Account;
use ring::{Buf, Error, OutBuf};
use std::rc::Rc;
use wire::client_hello::{Hello, MOST_BYTES, Reader};

/// Serves a connection to its end.
pub(crate) async fn serve(core: Rc<Core>, port: Rc<Port>, mut client: Client) {
    let begun_ns = ring::now();
    let most_ns = port.serving(&core).map_or(0, |(current, id)| current.plan.listener(id).opening_timeout_ns);
    let hello = hello(&core, &mut client, begun_ns.saturating_add(most_ns)).await;
    // Asked for again: a plan that has come meanwhile is the one that counts.
    if let Some((current, id)) = port.serving(&core) {
        match hello {
            Ok(hello) => tcp::pass(&core, port, current, id, &mut client, hello.sni.as_deref()).await,
            Err(opening) => {
                let listener = current.plan.listener(id);
                let account = Account::of(&current, listener.unrouted, [None; 2], listener.logs());
                let duration_ns = ring::now().saturating_sub(begun_ns);
                let record = Record { begun_ns, duration_ns, protocol: tcp::PROTOCOL, ..Record::default() };
                account.close(&core, &client, Ending::PassthroughRefused(opening), record);
                client.stream.reset_on_close();
            }
        }
    }
    hang_up(&core, client.stream);
}

/// Reads the ClientHello, and leaves it with what came behind it in `client.input`. One that came in one piece, as most do,
/// stays where it lies.
async fn hello(core: &Core, client: &mut Client, until_ns: u64) -> Result<Hello, Opening> {
    let mut reader = Reader::new(MOST_BYTES);
    let first = match client.input.take() {
        Some(buf) => buf,
        None => receive(core, client, until_ns).await?,
    };
    if let Some(hello) = reader.read(&first).map_err(Opening::Hello)? {
        client.input = Some(first);
        return Ok(hello);
    }
    let mut pieces = OutBuf::new();
    pieces.extend_from_slice(&first);
    drop(first);
    loop {
        let buf = receive(core, client, until_ns).await?;
        pieces.extend_from_slice(&buf);
        drop(buf);
        if let Some(hello) = reader.read(&pieces).map_err(Opening::Hello)? {
            client.input = Some(Buf::gathered(pieces).map_err(|_| Opening::Limit)?);
            return Ok(hello);
        }
    }
}

async fn receive(core: &Core, client: &Client, until_ns: u64) -> Result<Buf, Opening> {
    match client.stream.recv(until_ns).await {
        Ok(Some(buf)) => {
            core.counters.downstream_received_bytes.add(buf.len() as u64);
            Ok(buf)
        }
        Err(Error::TimedOut) => Err(Opening::Timeout),
        Ok(None) | Err(_) => Err(Opening::ClientGone),
    }
}
