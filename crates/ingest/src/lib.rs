//! Queues, flush policy and acks: from a request's rows to batches for one instance and back.
//!
//! Knows no PostgreSQL and no protocol: batches leave through a [`Sink`]. The way of a row:
//! [`Ingest::submit`] routes a block's rows to one queue a table, under load together with those
//! of other requests ([`gather`]), [`queue`] decides which table a
//! writer takes next, [`flush`] writes a batch and isolates rows that can't be written, and a
//! [`ticket`] counts until every row of the request is committed or refused.
//!
//! Guarantees, each with its test in `tests/`: one batch of a table is in flight at a time and
//! rows that could not be written go back to the front, so writes of a key keep their order; a row
//! is acknowledged only after the sink reported its commit; every queue is bounded in bytes.

mod ack;
mod admission;
mod budget;
mod config;
mod depth;
mod flush;
mod gather;
mod ingest;
mod job;
mod lot;
mod metrics;
mod outcome;
mod plan;
mod queue;
mod route;
mod routing;
mod signal;
mod sink;
mod table;
mod tables;
mod ticket;

pub use ack::Ack;
pub use config::IngestConfig;
pub use ingest::{Ingest, InstanceStats, SubmitError, WhenFull};
pub use metrics::describe;
pub use outcome::{Code, Outcome, RowRefusal};
pub use routing::{FeedRoute, Owner, Routing};
pub use signal::Signal;
pub use sink::{Doubt, ErrorKind, Sink, SinkError, Target};

#[cfg(test)]
mod tests;
