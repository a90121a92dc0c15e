//! Why a request is decided as it is, in words. Nothing is sent, taken or changed.

use crate::decide::{Cache, Request};
use crate::{ListenerId, Plan};
use std::fmt;

/// What the plan does with a request, and why. Prints as lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    lines: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Plan {
    /// What would be done with a request that came through `listener`, and why.
    pub fn explain(&self, listener: ListenerId, request: &Request<'_>) -> Explanation {
        let mut cache = Cache::default();
        let decision = self.decide(listener, request, 0, &mut cache);
        Explanation { lines: vec![decision.show(self, &cache.text).to_string()] }
    }
}
