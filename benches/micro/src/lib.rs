//! The hot path without PostgreSQL: what its benchmarks, counts and tests share.
//!
//! `pgbraid-hotpath` runs the whole path on a fixed input: [`message`] makes requests as they come
//! from the network, [`stream`] takes them through [`path`], the router's own code, and [`sink`]
//! stands in for PostgreSQL. The benches beside it measure single steps of it.

pub mod alloc;
pub mod feed;
pub mod message;
pub mod path;
pub mod random;
pub mod sink;
pub mod steady;
pub mod stream;
