//! The pure model of a feed: types, columns, rows, batches, merge per key, and PostgreSQL's
//! binary encoding. No I/O, no tokio, no protocol.
//!
//! The way of a row: a request's columns become a [`Block`] ([`input`], [`rows`]), validated;
//! its rows are put side by side for each table by [`Block::arrange`], or those of several requests
//! by [`gather()`]; what queues up for a table is appended to a [`Chunk`], and
//! becomes a [`Batch`] in which each key stands once; the batch's [`Statement`]s hand their columns
//! to PostgreSQL as binary arrays ([`encode`]).

pub mod arrange;
pub mod batch;
pub mod block;
pub mod chunk;
mod columns;
pub mod encode;
pub mod gather;
pub mod input;
pub mod mask;
mod overflow;
pub mod refusal;
pub mod rows;
pub mod scalar;
pub mod schema;
pub mod types;

pub use arrange::Arranged;
pub use batch::{Batch, MergedRow, RowRef, Statement};
pub use block::{Block, ColumnData, Operation};
pub use chunk::Chunk;
pub use gather::{Gathered, gather};
pub use mask::ColumnMask;
pub use refusal::{Refusal, RequestError};
pub use schema::{Coalesce, Column, FeedSchema, KeyColumn, MergePolicy};
