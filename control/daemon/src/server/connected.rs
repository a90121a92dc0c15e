//! Who is connected: holders of certificates, by how many connections they have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Holders as `PeerCertificate::holder` names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connected(Arc<Mutex<HashMap<String, usize>>>);

/// One connection of a holder; dropped, it is one less.
#[derive(Debug)]
pub(crate) struct Present {
    connected: Connected,
    holder: String,
}

impl Connected {
    /// A holder has one connection more.
    pub(crate) fn enter(&self, holder: String) -> Present {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(holder.clone()).or_default() += 1;
        Present { connected: self.clone(), holder }
    }

    /// This holder has a connection.
    pub(crate) fn has(&self, holder: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(holder)
    }

    /// How many connections there are with a certificate.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut holders = self.connected.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = holders.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_there_as_long_as_one_of_its_connections_is() {
        let connected = Connected::default();
        let (first, second) = (connected.enter("a".to_owned()), connected.enter("a".to_owned()));
        drop(first);
        assert!(connected.has("a") && !connected.has("b"));
        assert_eq!(connected.count(), 1);
        drop(second);
        assert!(!connected.has("a"));
    }
}
