//! A mesh of real processes: `ringwayd`, proxies that join it, services behind them, and an operator who pushes.

mod envoy;
mod figures;
mod hops;
mod independent;
mod restarts;
mod running;
