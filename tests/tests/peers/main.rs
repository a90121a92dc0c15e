//! With real peers: curl as client, nginx as origin, Envoy as oracle. A test whose peer is missing says so and passes.

mod curl;
mod envoy;
mod mtls;
mod nginx;
