//! The dashboard's pages about files, batches, events and webhooks, and the queries behind them.

mod actions;
mod browser;
mod dashboard_user;
mod hostile;
mod lists;
mod plans;
