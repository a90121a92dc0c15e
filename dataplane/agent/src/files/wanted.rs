//! Which files a configuration names, and what for.

use api::Resources;
use std::collections::BTreeMap;

/// What a file is for: its size is bounded accordingly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Use {
    /// A certificate chain.
    Certificate,
    /// A private key: others should not read it.
    Key,
    /// Roots to trust, or certificates not to trust any more.
    #[default]
    Trust,
}

impl Use {
    /// How large such a file may be, bytes.
    pub(super) fn most_bytes(self) -> u64 {
        match self {
            Use::Certificate | Use::Key => 1 << 20,
            Use::Trust => 16 << 20,
        }
    }
}

/// The files of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What each is for.
    pub(crate) uses: BTreeMap<Box<str>, Use>,
    /// Files that change together: a certificate and its key, the parts of a bundle.
    pub(crate) groups: Vec<Vec<Box<str>>>,
}

impl Wanted {
    /// The files that these resources name.
    pub(crate) fn of(_resources: &Resources) -> Wanted {
        Wanted::default()
    }
}
