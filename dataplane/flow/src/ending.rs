//! Every way in which a request, or a connection without one, can end: who is to blame, what the client gets, and the
//! name under which it is counted and logged.

use wire::client_hello;
use wire::h1::Reject;
use wire::proxy;
use wire::tls::Failure;

/// Whose doing an ending is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Nobody's: it ended as it should.
    Nobody,
    /// The client's side.
    Downstream,
    /// The service's side.
    Upstream,
    /// Ours: limits, draining, configuration.
    Proxy,
}

/// How a request or connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Answered by a service, to its end.
    Complete,
    /// Answered with a route's fixed answer.
    Responded,
    /// Answered with a redirect.
    Redirected,
    /// No route matches: 404.
    NoRoute,
    /// The client's message is malformed or over a limit: 400, 414, 417, 431, 501, 505 as the reason says.
    Refused(Reject),
    /// The body is longer than `limits: body`: 413.
    BodyTooLarge,
    /// The head or the body did not arrive in time: 408.
    RequestTimeout,
    /// The client went away, or stopped taking bytes, before the answer was complete.
    ClientGone,
    /// The client took no bytes for the idle timeout.
    ClientStalled,
    /// The route names a service that the plan does not have: 503.
    UnknownService,
    /// The service has no endpoint (its name does not resolve, or all weights are zero): 503.
    NoEndpoint,
    /// A limit of the service is reached and its queue is full, or the wait in it was too long: 503.
    Overloaded,
    /// No endpoint could be connected to: 503.
    ConnectFailed,
    /// The connection to the endpoint did not stand in time: 503.
    ConnectTimeout,
    /// The service closed or reset before its answer's head was complete: 502.
    UpstreamReset,
    /// The service's answer is malformed: 502.
    UpstreamInvalid(Reject),
    /// The service answered 101 unasked, or too often 1xx: 502.
    UpstreamUnasked,
    /// The answer did not begin, or was not complete, in time: 504, or cut short when it had begun.
    UpstreamTimeout,
    /// The service broke off within its answer's body: the client's connection is cut, so that it shows.
    UpstreamTruncated,
    /// A tunnel (TCP, WebSocket) that both sides closed.
    TunnelClosed,
    /// A tunnel in which no byte passed for its idle timeout.
    TunnelIdle,
    /// A tunnel that broke on the client's side.
    TunnelClientReset,
    /// A tunnel that broke on the service's side.
    TunnelUpstreamReset,
    /// Cut off at the end of draining.
    Drained,
    /// Policy does not let the request, the connection or (under a later plan) the tunnel in: 403.
    Denied,
    /// A CORS preflight, which we answer by ourselves.
    Preflight,
    /// A quota of the client is used up: 429.
    QuotaExceeded,
    /// The host is another certificate's than the one that the handshake asked for: 421 (RFC 9110 section 15.5.20).
    Misdirected,
    /// A connection whose TLS handshake came to nothing.
    HandshakeFailed(Failure),
    /// TLS with the endpoint could not be agreed upon: 503.
    UpstreamTls(Failure),
    /// TLS that was to be passed on, and that has no ClientHello or asks for a name that no host has: closed.
    PassthroughRefused(Opening),
    /// A connection without the PROXY header that it must begin with, or from a peer that may not send one: closed.
    ProxyHeader(Opening),
}

/// What was wrong with what a connection began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// No ClientHello that could be read.
    Hello(client_hello::Reject),
    /// The name that it asks for is nobody's, or it asks for none.
    UnknownName,
    /// No PROXY header that could be read.
    Header(proxy::Reject),
    /// The peer is none of those that may send a PROXY header.
    ForeignPeer,
    /// It was not there in time.
    Timeout,
    /// The client went before it was there.
    ClientGone,
    /// Too much is under way in pieces.
    Limit,
}

impl Opening {
    fn label(self) -> &'static str {
        match self {
            Opening::Hello(reject) => reject.label(),
            Opening::UnknownName => "unknown_name",
            Opening::Header(reject) => reject.label(),
            Opening::ForeignPeer => "foreign_peer",
            Opening::Timeout => "timeout",
            Opening::ClientGone => "client_gone",
            Opening::Limit => "limit",
        }
    }
}

/// All labels, in the order of [`Ending::index`].
pub const LABELS: [&str; 32] = [
    "complete",
    "responded",
    "redirected",
    "no_route",
    "refused",
    "body_too_large",
    "request_timeout",
    "client_gone",
    "client_stalled",
    "unknown_service",
    "no_endpoint",
    "overloaded",
    "connect_failed",
    "connect_timeout",
    "upstream_reset",
    "upstream_invalid",
    "upstream_unasked",
    "upstream_timeout",
    "upstream_truncated",
    "tunnel_closed",
    "tunnel_idle",
    "tunnel_client_reset",
    "tunnel_upstream_reset",
    "drained",
    "denied",
    "misdirected",
    "handshake_failed",
    "upstream_tls",
    "passthrough_refused",
    "proxy_header",
    "quota_exceeded",
    "preflight",
];

impl Ending {
    /// The place of its counter.
    pub fn index(self) -> usize {
        match self {
            Ending::Complete => 0,
            Ending::Responded => 1,
            Ending::Redirected => 2,
            Ending::NoRoute => 3,
            Ending::Refused(_) => 4,
            Ending::BodyTooLarge => 5,
            Ending::RequestTimeout => 6,
            Ending::ClientGone => 7,
            Ending::ClientStalled => 8,
            Ending::UnknownService => 9,
            Ending::NoEndpoint => 10,
            Ending::Overloaded => 11,
            Ending::ConnectFailed => 12,
            Ending::ConnectTimeout => 13,
            Ending::UpstreamReset => 14,
            Ending::UpstreamInvalid(_) => 15,
            Ending::UpstreamUnasked => 16,
            Ending::UpstreamTimeout => 17,
            Ending::UpstreamTruncated => 18,
            Ending::TunnelClosed => 19,
            Ending::TunnelIdle => 20,
            Ending::TunnelClientReset => 21,
            Ending::TunnelUpstreamReset => 22,
            Ending::Drained => 23,
            Ending::Denied => 24,
            Ending::Misdirected => 25,
            Ending::HandshakeFailed(_) => 26,
            Ending::UpstreamTls(_) => 27,
            Ending::PassthroughRefused(_) => 28,
            Ending::ProxyHeader(_) => 29,
            Ending::QuotaExceeded => 30,
            Ending::Preflight => 31,
        }
    }

    /// Its name in metrics and logs.
    pub fn label(self) -> &'static str {
        LABELS[self.index()]
    }

    /// Whose doing it is.
    pub fn blame(self) -> Blame {
        match self {
            Ending::Complete | Ending::Responded | Ending::Redirected | Ending::Preflight | Ending::TunnelClosed => {
                Blame::Nobody
            }
            Ending::NoRoute
            | Ending::Refused(_)
            | Ending::BodyTooLarge
            | Ending::RequestTimeout
            | Ending::ClientGone
            | Ending::ClientStalled
            | Ending::TunnelIdle
            | Ending::TunnelClientReset
            | Ending::Denied
            | Ending::QuotaExceeded
            | Ending::Misdirected
            | Ending::HandshakeFailed(_)
            | Ending::PassthroughRefused(_)
            | Ending::ProxyHeader(_) => Blame::Downstream,
            Ending::ConnectFailed
            | Ending::ConnectTimeout
            | Ending::UpstreamReset
            | Ending::UpstreamInvalid(_)
            | Ending::UpstreamUnasked
            | Ending::UpstreamTimeout
            | Ending::UpstreamTruncated
            | Ending::UpstreamTls(_)
            | Ending::TunnelUpstreamReset => Blame::Upstream,
            Ending::UnknownService | Ending::NoEndpoint | Ending::Overloaded | Ending::Drained => Blame::Proxy,
        }
    }

    /// The status of the answer that we give, where we give one.
    pub fn status(self) -> Option<u16> {
        match self {
            Ending::NoRoute => Some(404),
            Ending::Refused(reject) => Some(reject.status()),
            Ending::BodyTooLarge => Some(413),
            Ending::RequestTimeout => Some(408),
            Ending::Denied => Some(403),
            Ending::QuotaExceeded => Some(429),
            Ending::Misdirected => Some(421),
            Ending::UpstreamReset | Ending::UpstreamInvalid(_) | Ending::UpstreamUnasked => Some(502),
            Ending::UnknownService
            | Ending::NoEndpoint
            | Ending::Overloaded
            | Ending::ConnectFailed
            | Ending::ConnectTimeout
            | Ending::UpstreamTls(_) => Some(503),
            Ending::UpstreamTimeout => Some(504),
            _ => None,
        }
    }

    /// The reason for people, in the answer's body and the log.
    pub fn text(self) -> &'static str {
        match self {
            Ending::Refused(reject) => reject.text(),
            Ending::UpstreamInvalid(_) => "the service's answer is malformed",
            Ending::NoRoute => "no route matches",
            Ending::BodyTooLarge => "the body is larger than allowed",
            Ending::RequestTimeout => "the request did not arrive in time",
            Ending::UnknownService => "the service is not known",
            Ending::NoEndpoint => "the service has no endpoint",
            Ending::Overloaded => "the service is at its limit",
            Ending::ConnectFailed => "no connection to the service",
            Ending::ConnectTimeout => "no connection to the service in time",
            Ending::UpstreamReset => "the service closed the connection without an answer",
            Ending::UpstreamUnasked => "the service's answer was not asked for",
            Ending::UpstreamTimeout => "the service did not answer in time",
            Ending::Denied => "not allowed",
            Ending::QuotaExceeded => "too many requests",
            Ending::Misdirected => "the connection is for another host",
            Ending::UpstreamTls(_) => "no secure connection to the service",
            other => other.label(),
        }
    }

    /// The exact reason behind a refusal, for the log.
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Ending::Refused(reject) | Ending::UpstreamInvalid(reject) => Some(reject.label()),
            Ending::HandshakeFailed(failure) | Ending::UpstreamTls(failure) => Some(failure.label()),
            Ending::PassthroughRefused(opening) | Ending::ProxyHeader(opening) => Some(opening.label()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_all_different() {
        let mut labels = LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), LABELS.len());
    }
}
