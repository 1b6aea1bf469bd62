//! The hot path without PostgreSQL: what its benchmarks, counts and tests share.
//!
//! `pgbraid-hotpath` runs the whole path on a fixed input: [`message`] makes requests as they come
//! from the network, [`stream`] takes them through [`path`], the router's own code, and [`sink`]
//! stands in for PostgreSQL. The benches beside it measure single steps of it.
//!
//! ```text
//! cargo bench --profile count -p pgbraid-micro                           # single steps
//! alias hotpath='cargo run --profile count -p pgbraid-micro --bin pgbraid-hotpath --'
//! hotpath columnar --requests 4000     # the whole path, for a profiler; or rows, or single
//! hotpath count                        # instructions a row against the committed figures
//! hotpath allocations                  # a request and a row
//! hotpath scale                        # 256 instances and 4096 tables against 4 and 64
//! hotpath memory                       # with full queues, and with empty ones again
//! ```

pub mod alloc;
pub mod feed;
pub mod message;
pub mod path;
pub mod random;
pub mod sink;
pub mod steady;
pub mod stream;
