//! Traffic through a real proxy process: HTTP/1.1 by section of its RFCs, TCP, balancing, limits, endings.

mod balancing;
mod bodies;
mod connections;
mod endings;
mod expect;
mod fields;
mod framing;
mod limits;
mod listeners;
mod origins;
mod routing;
mod tcp;
mod timeouts;
mod upgrade;
