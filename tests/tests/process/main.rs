//! The process around the traffic: start, `check`, `explain`, reload, draining, admin pages, access log.

mod accesslog;
mod admin;
mod check;
mod drain;
mod examples;
mod explain;
mod reload;
mod start;
mod tour;
