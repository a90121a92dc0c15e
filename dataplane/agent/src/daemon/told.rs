//! What the daemon is told, as its messages: `ringway.v1`.

use super::standing::now_ms;
use api::pb;
use plan::Rejection;

/// A rejection, with the version of what was rejected.
pub(crate) fn rejected(one: &Rejection, version: String) -> pb::Rejected {
    pb::Rejected {
        type_url: one.type_url().to_owned(),
        name: one.name.to_string(),
        field: one.field.to_string(),
        reason: one.reason.to_string(),
        version,
    }
}

/// A generation that all cores work with since now, and the push that it came of.
pub(crate) fn applied(version: String, generation: u64) -> pb::Applied {
    pb::Applied { version, generation, at_ms: now_ms() }
}
