//! Who is connected: holders of certificates, and addresses of those who have shown none, by how many connections they have.

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
    /// A holder has one connection more; None: it has as many as one may have.
    pub(crate) fn enter(&self, holder: String, most: usize) -> Option<Present> {
        let mut holders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = holders.entry(holder.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Present { connected: self.clone(), holder })
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
        let enter = || connected.enter("a".to_owned(), 2);
        let (first, second) = (enter(), enter());
        assert!(first.is_some() && second.is_some());
        assert!(enter().is_none(), "one too many");
        assert_eq!(connected.count(), 2);
        assert!(connected.enter("b".to_owned(), 2).is_some(), "others are others");
        drop(first);
        assert!(connected.has("a") && !connected.has("b"));
        assert_eq!(connected.count(), 1);
        drop(second);
        assert!(!connected.has("a"));
    }
}
