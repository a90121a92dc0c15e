//! Policy through a real proxy process: who may do what, how often, from where; what is told of it; and that no trick of spelling
//! gets around it.

mod cors;
mod explain;
mod forwarded;
mod gate;
mod migrate;
mod order;
mod paths;
mod quotas;
mod rules;
mod tcp;
mod telling;
