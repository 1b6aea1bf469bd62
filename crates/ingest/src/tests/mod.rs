//! Ingestion over a sink in memory: what is guaranteed, without PostgreSQL.

mod appended;
mod faults;
mod flow;
mod gather;
mod patience;
mod sink;
