//! With real peers: curl and openssl as clients, nginx and openssl as services, Envoy as oracle and on the other side of mutual TLS. A
//! test whose peer is missing says so and passes.

mod curl;
mod envoy;
mod mtls;
mod nginx;
mod openssl;
mod passthrough;
mod proxied;
mod spiffe;
