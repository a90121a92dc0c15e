//! What proxies count one by one, beside requests and their durations.

use super::telemetry::{LONGEST, MOST_REPORTED, OTHER};
use api::pb;

/// Labels of endings and reasons are ours; a longer one is not.
const LONGEST_LABEL: usize = 64;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// A request or a connection that ended so.
    Ending(String),
    /// A request that ended so, which was somebody's doing.
    Failed {
        /// The listener.
        listener: String,
        /// The route; empty: none took it.
        route: String,
        /// The service; empty: the proxy answered by itself.
        service: String,
        /// How.
        ending: String,
    },
    /// A handshake that was completed.
    Handshake,
    /// A handshake that failed, for this reason.
    HandshakeFailure(String),
    /// A request that was malformed, or over a limit.
    InvalidRequest,
    /// A connection that rules refused.
    RefusedConnection,
}

impl Word {
    /// What a report counts, each once; what is too long, or too much, is left out.
    pub(super) fn of(counters: &pb::Counters) -> impl Iterator<Item = (Word, u64)> {
        let labels = |map| label(map).take(MOST_REPORTED);
        let failed = counters.series.iter().filter(|series| series.source.is_empty()).flat_map(|series| {
            let pb::Series { listener, route, service, endings, .. } = series;
            let fits = [listener, route, service].iter().all(|name| name.len() <= LONGEST);
            label(endings).filter(move |_| fits).map(|(ending, count)| {
                let (listener, route, service) = (listener.clone(), route.clone(), service.clone());
                (Word::Failed { listener, route, service, ending }, count)
            })
        });
        let single = [
            (Word::Handshake, counters.handshakes),
            (Word::InvalidRequest, counters.invalid_requests),
            (Word::RefusedConnection, counters.refused_connections),
        ];
        single
            .into_iter()
            .chain(labels(&counters.endings).map(|(label, count)| (Word::Ending(label), count)))
            .chain(labels(&counters.handshake_failures).map(|(label, count)| (Word::HandshakeFailure(label), count)))
            .chain(failed.take(MOST_REPORTED))
            .filter(|(_, count)| *count > 0)
    }

    /// What is added up where there are too many.
    pub(super) fn other(self) -> Word {
        let other = || OTHER.to_owned();
        match self {
            Word::Ending(_) => Word::Ending(other()),
            Word::HandshakeFailure(_) => Word::HandshakeFailure(other()),
            Word::Failed { .. } => {
                Word::Failed { listener: other(), route: other(), service: other(), ending: other() }
            }
            single => single,
        }
    }
}

fn label(map: &std::collections::BTreeMap<String, u64>) -> impl Iterator<Item = (String, u64)> {
    map.iter().filter(|(label, _)| label.len() <= LONGEST_LABEL).map(|(label, count)| (label.clone(), *count))
}
