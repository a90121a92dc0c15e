//! What the daemon is told, as its messages: `ringway.v1`.

use api::pb;
use plan::Rejection;

/// A rejection, with the version of what was rejected.
pub(super) fn rejected(one: &Rejection, version: String) -> pb::Rejected {
    pb::Rejected {
        type_url: one.type_url().to_owned(),
        name: one.name.to_string(),
        field: one.field.to_string(),
        reason: one.reason.to_string(),
        version,
    }
}
