//! The process around the traffic: start, `check`, reload, draining, admin pages, access log.

mod accesslog;
mod admin;
mod check;
mod drain;
mod examples;
mod reload;
mod start;
