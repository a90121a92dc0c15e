//! What rustls tells our callbacks, and nobody else, about the connection that this thread is at work on; and what they have to
//! be told in turn. One connection at a time: [`with`] stands around every call into rustls that may call back.

use std::cell::{Cell, RefCell};

/// What is known of a connection on the side.
#[derive(Debug)]
pub(super) struct Aside {
    /// The name that the hello asked for.
    pub(super) asked: Option<Box<str>>,
    /// When the first thing ends on which the trust in the other end rests, Unix seconds: its certificate, one above it, or a list
    /// of what is revoked. The session must not be resumed beyond it.
    pub(super) ends_s: u64,
}

impl Default for Aside {
    fn default() -> Aside {
        Aside { asked: None, ends_s: u64::MAX }
    }
}

thread_local! {
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
    static ENDS_S: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Calls into rustls on behalf of a connection.
pub(super) fn with<T>(aside: &mut Aside, act: impl FnOnce() -> T) -> T {
    ASKED.set(aside.asked.take());
    ENDS_S.set(aside.ends_s);
    let result = act();
    *aside = Aside { asked: ASKED.take(), ends_s: ENDS_S.replace(u64::MAX) };
    result
}

/// The hello asks for this name.
pub(super) fn asks(name: Option<&str>) {
    ASKED.set(name.map(Box::from));
}

/// The trust in the other end rests on nothing that ends sooner.
pub(super) fn ends(at_s: u64) {
    ENDS_S.set(at_s);
}

/// When the trust in the other end ends, as far as it is known.
pub(super) fn ends_s() -> u64 {
    ENDS_S.get()
}
